// The replay of a trajectory: one step at a time, what was done drawn on what the model saw.

const run = JSON.parse(document.getElementById("run").textContent);
const at = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const steps = run.steps;
let index = 0, after = false, playing = null, drawing = 0;

const source = (path) => (run.images ? run.images[path] : run.root + path);

// ── Where we are ──

function from(hash) {
  const found = /^#(\d+)(?:\/(\d+))?$/.exec(hash);
  if (!found) return 0;
  const turn = Number(found[1]), step = Number(found[2] ?? 0);
  const exact = steps.findIndex((each) => each.turn === turn && each.index === step);
  const near = exact < 0 ? steps.findIndex((each) => each.turn >= turn) : exact;
  return near < 0 ? steps.length - 1 : near;
}

function go(to, told = true) {
  index = Math.max(0, Math.min(steps.length - 1, to));
  if (to > index) stop();
  const step = steps[index];
  if (step && told) history.replaceState(null, "", `#${step.turn}/${step.index}`);
  show();
}

addEventListener("hashchange", () => go(from(location.hash), false));
at("back").onclick = () => go(index - 1);
at("on").onclick = () => go(index + 1);
at("slider").oninput = ({ target }) => go(Number(target.value));
at("after").onclick = () => { after = !after; show(); };
at("play").onclick = () => (playing ? stop() : play());

function play() {
  if (index === steps.length - 1) go(0);
  playing = setInterval(() => go(index + 1), 1400);
  at("play").setAttribute("aria-pressed", true);
  at("play").textContent = "Pause";
}

function stop() {
  clearInterval(playing);
  playing = null;
  at("play").setAttribute("aria-pressed", false);
  at("play").textContent = "Play";
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key;
  const onButton = event.target.closest?.("button, a");
  if (key === "ArrowLeft") go(index - 1);
  else if (key === "ArrowRight") go(index + 1);
  else if (key === "Home") go(0);
  else if (key === "End") go(steps.length - 1);
  else if (key === "PageUp") go(steps.findLastIndex((each) => each.turn < steps[index].turn));
  else if (key === "PageDown") {
    const next = steps.findIndex((each) => each.turn > steps[index].turn);
    go(next < 0 ? steps.length - 1 : next);
  } else if (key === "a") at("after").click();
  else if (key === " " && !onButton) at("play").click();
  else return;
  event.preventDefault();
});

// ── What is shown ──

function show() {
  const step = steps[index];
  at("slider").value = index;
  at("back").disabled = index === 0;
  at("on").disabled = index >= steps.length - 1;
  at("where").textContent = step ? `turn ${step.turn + 1} · step ${index + 1} of ${steps.length}` : "no steps";
  at("after").setAttribute("aria-pressed", after);
  at("after").disabled = !step?.after;
  tell(step);
  paint(step);
  for (const path of [steps[index + 1]?.before, step?.after]) if (path) new Image().src = source(path) ?? ""; // soon wanted
}

async function paint(step) {
  const turn = ++drawing;
  const path = (after && step?.after) || step?.before;
  const address = path && source(path);
  const image = new Image();
  if (address) {
    image.src = address;
    await image.decode().catch(() => {});
  }
  if (turn !== drawing) return; // another step was chosen meanwhile
  const place = at("picture");
  if (!image.naturalWidth && !step?.action) return place.replaceChildren(box(path ? "This picture cannot be shown." : "There is no picture of this step."));
  const width = image.naturalWidth || 1280, height = image.naturalHeight || 800;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const title = make("title");
  title.textContent = words(step.action) || "The screen";
  svg.append(title);
  if (address) svg.append(make("image", { href: address, width, height }));
  svg.append(make("rect", { class: "screenedge", width, height }));
  place.replaceChildren(svg);
  if (step.action && !(after && step.after)) draw(svg, step.action, width, height);
}

function box(text) {
  const made = document.createElement("p");
  made.className = "none";
  made.textContent = text;
  return made;
}

function make(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// ── What was done, on the picture ──

const number = (value) => (Number.isFinite(value) ? value : null);

function draw(svg, action, width, height) {
  const unit = Math.max(width, height) / 1280;
  const x = number(action.x), y = number(action.y), here = x !== null && y !== null;
  const both = (name, attributes) => svg.append(make(name, { ...attributes, class: "mark halo" }), make(name, { ...attributes, class: "mark" }));
  const ring = (cx, cy, r) => {
    svg.append(make("circle", { cx, cy, r, class: "mark halo" }), make("circle", { cx, cy, r, class: "mark ring" }));
  };
  const dot = (cx, cy) => svg.append(make("circle", { cx, cy, r: 4 * unit, class: "mark dot" }));
  const arrow = (x1, y1, x2, y2) => {
    const angle = Math.atan2(y2 - y1, x2 - x1), size = 16 * unit;
    const wing = (turn) => `${x2 - size * Math.cos(angle + turn)} ${y2 - size * Math.sin(angle + turn)}`;
    both("path", { d: `M${wing(0.45)} L${x2} ${y2} L${wing(-0.45)}` });
  };
  const held = action.keys?.length && action.action !== "keypress" && action.action !== "hold_key" ? `${action.keys.join(" + ")} + ` : "";
  const near = here ? [x, y + 34 * unit] : [width / 2, height - 60 * unit];
  const label = (text, place = near) => badge(svg, text, place, unit, width, height);
  switch (action.action) {
    case "click": case "mouse_down": case "mouse_up": {
      if (here) {
        for (let ringed = 0; ringed < (action.count ?? 1); ringed++) ring(x, y, (16 + 8 * ringed) * unit);
        dot(x, y);
      }
      const button = action.button && action.button !== "left" ? `${action.button} ` : "";
      const what = action.action === "click" ? ["", "click", "double click", "triple click"][action.count ?? 1] : action.action.replace("_", " ");
      if (button || held || !here || action.action !== "click" || (action.count ?? 1) > 1) label(`${held}${button}${what}`);
      break;
    }
    case "move":
      if (here) {
        const d = 14 * unit;
        both("path", { d: `M${x - d} ${y}H${x + d}M${x} ${y - d}V${y + d}` });
      }
      break;
    case "drag": {
      const path = (action.path ?? []).filter((point) => point.length === 2 && point.every(Number.isFinite));
      if (path.length < 2) break;
      both("polyline", { points: path.map((point) => point.join(",")).join(" ") });
      dot(...path[0]);
      arrow(...path.at(-2), ...path.at(-1));
      if (held) label(`${held}drag`, path[0]);
      break;
    }
    case "scroll": {
      const dx = number(action.dx) ?? 0, dy = number(action.dy) ?? 0, far = Math.hypot(dx, dy) || 1;
      const [cx, cy] = here ? [x, y] : [width / 2, height / 2], long = Math.min(Math.max(far / 3, 60), 180) * unit;
      const [tx, ty] = [cx + (dx / far) * long, cy + (dy / far) * long];
      both("line", { x1: cx, y1: cy, x2: tx, y2: ty });
      dot(cx, cy);
      arrow(cx, cy, tx, ty);
      label(`${held}scroll ${[dx && `${Math.abs(dx)} px ${dx > 0 ? "right" : "left"}`, dy && `${Math.abs(dy)} px ${dy > 0 ? "down" : "up"}`].filter(Boolean).join(", ")}`, [cx, cy - 40 * unit]);
      break;
    }
    case "zoom": {
      const [left, top, right, bottom] = action.region ?? [];
      if ([left, top, right, bottom].every(Number.isFinite)) both("rect", { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) });
      break;
    }
    case "screenshot": case "cursor_position": break;
    default: label(words(action), [width / 2, height - 60 * unit]);
  }
}

function badge(svg, text, [x, y], unit, width, height) {
  const line = text.replace(/\s*\n\s*/g, " ⏎ ");
  const shown = line.length > 70 ? `${line.slice(0, 70)}…` : line;
  const group = make("g", { class: "badge" });
  const label = make("text", { "font-size": 18 * unit });
  label.textContent = shown;
  const plate = make("rect", { rx: 6 * unit });
  group.append(plate, label);
  svg.append(group);
  const size = label.getBBox(), pad = 9 * unit;
  const left = Math.max(pad * 2, Math.min(width - size.width - pad * 2, x - size.width / 2));
  const top = Math.max(size.height + pad, Math.min(height - pad * 2, y + size.height));
  label.setAttribute("x", left);
  label.setAttribute("y", top);
  const placed = label.getBBox();
  for (const [key, value] of Object.entries({ x: placed.x - pad, y: placed.y - pad / 2, width: placed.width + 2 * pad, height: placed.height + pad })) plate.setAttribute(key, value);
}

function words(action) {
  if (!action) return "";
  const keys = (action.keys ?? []).join(" + ");
  const where = number(action.x) !== null ? ` at ${action.x}, ${action.y}` : "";
  switch (action.action) {
    case "type": return `type “${action.text ?? ""}”`;
    case "keypress": return keys + (action.repeat > 1 ? ` × ${action.repeat}` : "");
    case "hold_key": return `hold ${keys} for ${action.seconds} s`;
    case "wait": return `wait ${action.seconds ?? (action.ms ? action.ms / 1000 : 1)} s`;
    case "goto": return `go to ${action.url ?? ""}`;
    case "click": return `${keys ? `${keys} + ` : ""}${action.button && action.button !== "left" ? `${action.button} ` : ""}${["", "click", "double click", "triple click"][action.count ?? 1] ?? "click"}${where}`;
    case "drag": return `drag from ${(action.path?.[0] ?? []).join(", ")} to ${(action.path?.at(-1) ?? []).join(", ")}`;
    case "scroll": return `scroll ${[action.dx && `${action.dx} px across`, action.dy && `${action.dy} px down`].filter(Boolean).join(", ")}${where}`;
    default: return `${String(action.action).replaceAll("_", " ")}${where}`;
  }
}

// ── What was said, beside it ──

function tell(step) {
  const parts = [];
  const add = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.textContent = text;
    parts.push(made);
  };
  const list = (name, values) => {
    const rows = Object.entries(values).filter((row) => row[1] !== "" && row[1] !== null && row[1] !== 0);
    if (!rows.length) return;
    add("h2", "", name);
    const made = document.createElement("dl");
    for (const [key, value] of rows) {
      const term = document.createElement("dt"), told = document.createElement("dd");
      term.textContent = key.replaceAll("_", " ");
      told.textContent = typeof value === "number" && /cost/.test(key) ? `$${value.toFixed(4)}` : typeof value === "number" ? value.toLocaleString("en") : value;
      made.append(term, told);
    }
    parts.push(made);
  };
  if (step) {
    const fresh = steps.findLast((each) => each.turn === step.turn && each.index === 0) ?? step; // what is of the whole turn
    add("h2", "", `Turn ${step.turn + 1}`);
    if (step.action || step.call) add("p", "action", words(step.action) || step.call);
    for (const fault of step.faults) add("p", "fault", fault);
    if (step.told) add("p", step.failed ? "fault" : "said dim", step.told);
    else if (step.failed) add("p", "fault", "It was not done.");
    if (fresh.thought.length) add("h2", "", "Thought");
    for (const text of fresh.thought) add("p", "said thought", text);
    if (fresh.said.length) add("h2", "", "Said");
    for (const text of fresh.said) add("p", "said", text);
    if (step.action) {
      add("h2", "", "Action");
      add("pre", "", Object.entries(step.action).map(([key, value]) => `${key}: ${JSON.stringify(value)}`).join("\n"));
    }
    list("Used in this turn", fresh.usage ?? {});
  }
  list("Run", { model: run.model, status: run.status, began: when(run.created_at), ended: when(run.completed_at), turns: run.turns });
  list("Used in all", run.usage);
  if (run.faults.length) add("h2", "", "Not readable");
  for (const fault of run.faults) add("p", "fault", fault);
  at("told").replaceChildren(...parts);
  at("told").scrollTop = 0;
}

function when(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? text : date.toLocaleString();
}

go(from(location.hash), false);
