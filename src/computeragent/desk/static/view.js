// The live view: frames on a canvas, and, for whoever took over, the pointer and the keyboard.

const at = (id) => document.getElementById(id);
const stage = at("stage"), canvas = at("screen"), pen = canvas.getContext("2d"), keys = at("keys"), foot = at("foot");
const take = at("take"), resting = foot.innerHTML;
let socket, mine = false, live = false, kind = "", retry = 250, opened = false, last = null;

// ── What the server says ──

function connect() {
  const address = new URL("/screen", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  socket = new WebSocket(address);
  socket.binaryType = "blob";
  socket.onopen = () => { opened = true; retry = 250; };
  socket.onmessage = ({ data }) => (typeof data === "string" ? hear(JSON.parse(data)) : draw(data));
  socket.onclose = () => {
    hold({ mine: false, held: false });
    if (!opened) return motion();
    state("gone", "not connected");
    tell("The connection to the view has ended.", "It is tried again by itself.", false);
    setTimeout(connect, retry);
    retry = Math.min(retry * 2, 5000);
  };
}

function say(message) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

async function draw(jpeg) {
  try {
    const image = await createImageBitmap(jpeg);
    if (canvas.width !== image.width || canvas.height !== image.height) {
      canvas.width = image.width;
      canvas.height = image.height;
    }
    pen.drawImage(image, 0, 0);
    image.close();
    canvas.hidden = false;
    canvas.dataset.frames = Number(canvas.dataset.frames ?? 0) + 1;
  } finally {
    say({ type: "drawn" }); // the next one, when this one is seen: what comes in between is skipped
  }
}

function hear(message) {
  if (message.type === "status") {
    live = message.state === "live" || message.state === "waiting";
    kind = message.kind;
    const size = message.size ? ` · ${message.size.join(" × ")}` : "";
    const words = { live: `live · ${kind}${size}`, waiting: message.problem, gone: "gone", starting: "starting" };
    state(message.state, words[message.state]);
    if (message.state === "gone") tell(message.problem, message.hint, true);
    else at("notice").hidden = true;
    stage.classList.toggle("stale", !live);
    if (take) take.disabled = !live;
  } else if (message.type === "control") hold(message);
  else if (message.type === "error") {
    const told = document.createElement("span");
    told.className = "bad";
    told.textContent = message.message + (message.hint ? ` – ${message.hint}` : "");
    foot.replaceChildren(told);
  }
}

function state(name, text) {
  const pill = at("state");
  pill.dataset.state = name;
  pill.textContent = text;
}

function tell(problem, hint, again) {
  at("problem").textContent = problem;
  at("hint").textContent = hint ?? "";
  at("again").hidden = !again;
  at("notice").hidden = false;
  stage.classList.add("stale");
}

function motion() { // something between here and there does not let WebSockets through
  const image = new Image();
  image.className = "motion";
  image.alt = "The screen of the computer";
  image.onload = () => state("live", "live · pictures only");
  image.onerror = () => tell("The screen cannot be shown.", "Reload this page; the command says why.", false);
  image.src = "/screen.mjpg";
  canvas.replaceWith(image);
  if (take) take.disabled = true;
}

// ── The bar ──

at("again").onclick = () => say({ type: "again" });
at("actual").onclick = ({ target }) => {
  target.setAttribute("aria-pressed", stage.classList.toggle("actual"));
};
at("full").onclick = () => (document.fullscreenElement ? document.exitFullscreen() : stage.requestFullscreen());
if (take) take.onclick = () => say({ type: mine ? "release" : "take" });
if (at("address")) at("address").onsubmit = (event) => {
  event.preventDefault();
  const url = at("url").value.trim();
  if (url) act({ action: "goto", url: /^[a-z]+:/i.test(url) ? url : `https://${url}` });
  keys.focus();
};

// ── Who took over ──

function hold(control) {
  const was = mine;
  mine = control.mine;
  stage.classList.toggle("mine", mine);
  if (!take) return;
  take.setAttribute("aria-pressed", mine);
  take.textContent = mine ? "Give back" : control.held ? "Take over from another viewer" : "Take over";
  at("address").hidden = !(mine && kind === "browser");
  if (mine) {
    foot.innerHTML = "You have the pointer and the keyboard. <kbd>Shift</kbd> <kbd>Esc</kbd> gives them back.";
    keys.focus({ preventScroll: true });
  } else if (was) foot.innerHTML = resting;
}

function act(action) {
  if (mine) say({ type: "act", do: action });
}

function point(event) {
  const box = canvas.getBoundingClientRect();
  const border = canvas.clientLeft;
  const scale = canvas.width / (box.width - 2 * border);
  const clamp = (value, most) => Math.max(0, Math.min(most - 1, Math.floor(value * scale)));
  return { x: clamp(event.clientX - box.left - border, canvas.width), y: clamp(event.clientY - box.top - border, canvas.height) };
}

const BUTTONS = ["left", "middle", "right", "back", "forward"];
const held = (event) =>
  [["ctrl", event.ctrlKey], ["alt", event.altKey], ["shift", event.shiftKey], ["super", event.metaKey]].filter((one) => one[1]).map((one) => one[0]);
let modified = null, moving = null;

canvas.addEventListener("pointerdown", (event) => {
  if (!mine) return;
  event.preventDefault();
  keys.focus({ preventScroll: true });
  canvas.setPointerCapture(event.pointerId);
  flush();
  if (held(event).length) modified = point(event); // keys are held for a click, not for a drag
  else act({ action: "mouse_down", ...point(event), button: BUTTONS[event.button] });
});
canvas.addEventListener("pointerup", (event) => {
  if (!mine) return;
  event.preventDefault();
  flush();
  if (modified) act({ action: "click", ...modified, button: BUTTONS[event.button], keys: held(event) });
  else act({ action: "mouse_up", ...point(event), button: BUTTONS[event.button] });
  modified = null;
});
canvas.addEventListener("pointercancel", (event) => {
  modified = null;
  act({ action: "mouse_up", ...point(event) });
});
canvas.addEventListener("pointermove", (event) => {
  if (!mine) return;
  if (!moving) requestAnimationFrame(flush); // one move per frame that is drawn
  moving = point(event);
});
canvas.addEventListener("contextmenu", (event) => mine && event.preventDefault());
canvas.addEventListener("auxclick", (event) => mine && event.preventDefault());

function flush() {
  const { x, y } = moving ?? {};
  moving = null;
  if (x === undefined || (last && last.x === x && last.y === y)) return;
  last = { x, y };
  act({ action: "move", x, y });
}

const NOTCH = 120; // pixels of one click of a wheel
let turned = { x: 0, y: 0 };
canvas.addEventListener("wheel", (event) => {
  if (!mine) return;
  event.preventDefault();
  const unit = event.deltaMode === 1 ? 40 : event.deltaMode === 2 ? canvas.height : 1;
  turned.x += event.deltaX * unit;
  turned.y += event.deltaY * unit;
  const step = kind === "browser" ? 1 : NOTCH; // what has a wheel with notches turns by whole ones
  const whole = (delta) => (Math.abs(delta) < Math.min(step, 100) ? 0 : Math.sign(delta) * Math.max(step, Math.trunc(delta / step) * step));
  const dx = whole(turned.x), dy = whole(turned.y);
  if (!dx && !dy) return;
  if (dx) turned.x = 0;
  if (dy) turned.y = 0;
  act({ action: "scroll", ...point(event), dx, dy });
}, { passive: false });

// ── Keys: named ones and shortcuts as such, everything else as the text that it makes, however it is entered ──

const NAMED = {
  Enter: "enter", Tab: "tab", Escape: "escape", Backspace: "backspace", Delete: "delete", Insert: "insert", Home: "home", End: "end",
  PageUp: "pageup", PageDown: "pagedown", ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right",
  ContextMenu: "menu", Pause: "pause", PrintScreen: "printscreen",
};

keys.addEventListener("keydown", (event) => {
  if (!mine || event.isComposing) return;
  if (event.key === "Escape" && event.shiftKey) {
    event.preventDefault();
    say({ type: "release" });
    take.focus();
    return;
  }
  const name = NAMED[event.key] ?? (/^F\d+$/.test(event.key) ? event.key.toLowerCase() : null);
  const shortcut = (event.ctrlKey || event.altKey || event.metaKey) && !event.getModifierState("AltGraph");
  if (!name && !(shortcut && event.key.length === 1)) return; // text: it comes as input
  event.preventDefault();
  write();
  const modifiers = held(event).filter((each) => name || each !== "shift" || event.key.toLowerCase() !== event.key.toUpperCase());
  act({ action: "keypress", keys: [...modifiers, name ?? (event.key === " " ? "space" : event.key.toLowerCase())] });
});
keys.addEventListener("input", (event) => event.isComposing || write());
keys.addEventListener("compositionend", () => write());

function write() {
  const text = keys.value;
  keys.value = "";
  if (text) act({ action: "type", text });
}

connect();
