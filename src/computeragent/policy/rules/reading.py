"""From YAML to rules."""

from __future__ import annotations

from math import isnan
from typing import Any, cast

from computeragent.policy.rules.commands import programs
from computeragent.policy.rules.conditions import KEYS, make_conditions
from computeragent.policy.rules.document import Entry, read_yaml
from computeragent.policy.rules.globs import text_glob
from computeragent.policy.rules.ruleset import Effect, Rule, Ruleset

VERSION = 1
MAX_RULES = 5_000

_TOP = ("version", "default", "unclear", "rules", "cases", "defaults", "description")
_RULE = ("name", "effect", "reason", "match", "obligations")
_OBLIGATIONS = {
    "redact": ("kind", "argument", "with"),
    "cap": ("kind", "argument", "max"),
    "require_approval": ("kind", "reason"),
}


def read_ruleset(text: str, name: str) -> Ruleset:
    """The rules of a file's text. Raises `PolicyInvalidError`, which names the line."""
    top = read_yaml(text, name)
    if top.value is None:
        top.fail("there are no rules", "A policy begins with: version: 1")
    given = top.mapping("a policy", _TOP)
    if "version" not in given:
        top.fail("a policy needs its version", f"Write version: {VERSION}")
    version = given["version"]
    if version.value != VERSION or isinstance(version.value, bool):
        version.fail(f"version {version.written!r} is not known", f"Write version: {VERSION}")
    if "rules" not in given:
        top.fail("a policy needs its rules", "An empty list leaves all to the default: rules: []")
    default = given["default"].choice("default", ("deny", "ask", "allow")) if "default" in given else "deny"
    unclear = given["unclear"].choice("unclear", ("deny", "ask")) if "unclear" in given else "deny"
    rules = given["rules"]
    if not isinstance(rules.value, list):
        rules.fail("rules must be a list")
    if len(rules.items()) > MAX_RULES:
        rules.fail(f"there are more than {MAX_RULES} rules")
    made: dict[str, Rule] = {}
    for entry in rules.items():
        rule = _rule(entry)
        if rule.name in made:
            entry.fail(f"two rules are named {rule.name!r}", f"The other one is on line {made[rule.name].line}.")
        made[rule.name] = rule
    remembered = not any(condition.key == "paths" for rule in made.values() for condition in rule.conditions)
    return Ruleset(name, cast("Effect", default), cast("Any", unclear), tuple(made.values()), remembered)


def _rule(entry: Entry) -> Rule:
    given = entry.mapping("a rule", _RULE)
    for key in ("name", "effect"):
        if key not in given:
            entry.fail(f"a rule needs its {key}")
    effect = cast("Effect", given["effect"].choice("effect", ("allow", "deny", "ask")))
    match = given["match"].mapping("match", KEYS) if "match" in given else {}
    tools = tuple(match["tool"].texts("tool")) if "tool" in match else ()
    tests = [text_glob(name, ignore_case=True) for name in tools]
    if "obligations" in given and effect != "allow":
        given["obligations"].fail(f"obligations come with an allow, not with {effect}")
    obligations = _obligations(given["obligations"]) if "obligations" in given else ()
    return Rule(
        given["name"].text("name"),
        effect,
        given["name"].line,
        given["reason"].text("reason") if "reason" in given else "",
        (lambda name: any(test(name) for test in tests)) if tests else None,
        tools,
        make_conditions(match, strict=effect == "allow"),
        obligations,
        programs(match["commands"]) if "commands" in match else None,
    )


def _obligations(entry: Entry) -> tuple[dict[str, Any], ...]:
    if not isinstance(entry.value, list):
        entry.fail("obligations must be a list")
    found: list[dict[str, Any]] = []
    for item in entry.items():
        given = item.mapping("an obligation")
        if "kind" not in given:
            item.fail("an obligation needs its kind", f"Known: {', '.join(_OBLIGATIONS)}.")
        kind = given["kind"].choice("kind", _OBLIGATIONS)
        item.mapping(f"the obligation {kind}", _OBLIGATIONS[kind])
        if kind != "require_approval" and "argument" not in given:
            item.fail(f"{kind} needs an argument: a path such as headers.authorization")
        if "argument" in given:
            given["argument"].text("argument")
        if kind == "cap":
            limit = given["max"].value if "max" in given else None
            if not isinstance(limit, int | float) or isinstance(limit, bool) or isnan(limit):
                item.fail("cap needs a number: max")
        found.append(item.plain())
    return tuple(found)
