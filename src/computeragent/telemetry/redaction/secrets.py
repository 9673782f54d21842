"""Secrets known by what stands before them: assignments, headers, URLs with a password, private keys."""

from __future__ import annotations

from collections.abc import Iterator
from re import ASCII, DOTALL, IGNORECASE, Pattern
from re import compile as regex

from computeragent.telemetry.redaction.findings import Finding
from computeragent.telemetry.redaction.scanned import Scanned

_STRONG = (
    r"passw(?:or)?d|passwort|contraseña|mot_de_passe|passphrase|pwd|pgpassword|client_?secret|secret_?key|api_?key|apikey"
    r"|access_?key|private_?key|signing_?key|encryption_?key|account_?key|shared_?key|auth_?key|session_?key|master_?key"
    r"|(?:access|auth|refresh|session|bearer|id|api|oauth|bot|deploy|personal|github|gitlab|slack|csrf|security|x_vault|private)_?token"
    r"|client_?token|app_?secret|webhook_?secret|jwt_?secret|consumer_?secret|secret_?access_?key|conn(?:ection)?_?str(?:ing)?"
)
_WEAK = r"secret|token|credentials?|passcode|pin_?code|_key|_auth|_pass"
_NAME = regex(rf"(?:.*[_.\s])?(?:({_STRONG})|({_WEAK}))s?\Z", IGNORECASE | DOTALL)
_CAMEL = regex(r"(?<=[a-z0-9])(?=[A-Z])")
# The last two letters of all the words above: an operator is looked at only where they stand before it.
_ENDS = rb"(?<=(?:[rw]d|[re]t|[sdi]e|ey|[eo]n|al|[ltnydesk]s|ng|th|\xf1a)"
_OPERATOR = regex(b"=(?:" + b"|".join(_ENDS + gap + b"=)" for gap in (b"", b".", b"..", b"...")) + b")", DOTALL)
_WORD_BEFORE = regex(rf"(?:({_STRONG})|({_WEAK}))s?[\"'\])]{{0,2}}\s{{0,3}}\Z")
_AFTER = regex(r"[:=]{1,2}>?\s{0,3}")
_QUOTES = "\"'`"
_VALUE = {
    '"': regex(r'[^"\n]{1,4096}'),
    "'": regex(r"[^'\n]{1,4096}"),
    "`": regex(r"[^`\n]{1,4096}"),
    "": regex(r"[^\s\"'`<>,;&|)}\]]{1,4096}"),
}
_PLACEHOLDER = regex(
    r"(?:\W*|x{3,}|\*+.*|<.*|\$[({]?\w.*|%\(?\w+\)?[sd]?|\{.*|\[.*|none|null|nil|true|false|undefined|required|optional|default|redacted"
    r"|str|string|text|int|bytes|bool|any|object|self|cls|changeme|example|hidden|masked|your[_\- ].*|my[_\- ].*|enter .*|the .*"
    r"|(?:.*[_.\-])?(?:password|passwd|secret|token|key|apikey|api_key|credentials?|passphrase|name|type|value|field|input|env)s?"
    r"|os\.environ.*|process\.env.*|env\..*|getpass.*|.*\(.*)\Z",
    IGNORECASE | DOTALL,
)
_IDENTIFIER = regex(r"[A-Za-z_][A-Za-z_.]*[0-9]?\Z", ASCII)
_CODE_AFTER = "([."
_KINDS = (
    (
        "AWS_SESSION_TOKEN",
        regex(r"(?:aws|security|amz).{0,5}session_?token|aws_security_token|x_amz_security_token", IGNORECASE),
    ),
    ("AWS_SECRET_KEY", regex(r"secret_?access_?key|aws_secret_?key", IGNORECASE)),
)
# The patterns below read the lower-case form in which "-" is "_" and ":" is "=".
_FLAG = regex(
    r"(?<![_\w])__?(?:[a-z0-9]{1,20}_){0,3}(?:password|passwd|passphrase|pwd|token|secret|api_?key|access_key|secret_key)"
    r"[ =]\s{0,2}[\"']?([^\s\"'`,;]{4,512})"
)
_SAID = regex(
    r"(?:passwor[dt]|passphrase|pwd|passcode|api key|secret key|access token)(?: is|'s| was| ist| es)(?: now| set to)?=? [\"'`]?"
    r"([^\s\"'`,;]{4,512})"
)
_SAID_WORDS = (b"pass", b"pwd", b"key is", b"key was", b"token is", b"token was")
_BEARER = regex(r"bearer[ \t]{1,3}([a-z0-9\-._~+/=]{8,8192})")
_HEADER = regex(
    r"(?:authorization|_auth|api_?key|_token)[\"']{0,2}\s{0,2}[=,]\s{0,2}[\"']?"
    r"(?:(?:basic|bearer|token|digest|apikey|negotiate|bot)[ \t]{1,3})([^\s\"',;]{4,8192})"
)
_COOKIE = regex(r"(?<![\w])cookie[\"']?\s{0,2}=\s{0,2}[\"']?(?=[^\n\"']{0,256}=)([^\n\"']{8,8192})")
_DSN = regex(r"://([^\s:/@\"'<>\\]{0,256}):([^\s@\"'<>]{1,512})@(?=[\w\[%$])", ASCII)
_KEY_BEGIN = regex(r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_KEY_BODY = regex(r"[A-Za-z0-9+/=\s\\:,.()\"']*(?:-(?!----)[A-Za-z0-9+/=\s\\:,.()\"']*)*", ASCII)
_KEY_LINES = regex(r"(?:\s|\\[nr]|[A-Za-z0-9+/=]{16,})*", ASCII)
_KEY_END = regex(r"-----END (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----")


def secrets(scan: Scanned) -> Iterator[Finding]:
    """Values behind a name that says they are secret."""
    yield from _assigned(scan)
    words = scan.words
    if b"bearer" in words or b"authorization" in words or b"_auth" in words or b"api_key" in words:
        yield from _headers(scan)
    if b"cookie" in words:
        for match in _COOKIE.finditer(scan.lower):
            yield Finding("AUTH_HEADER", *match.span(1))
    if b"__" in words or b" _" in words:
        yield from _spoken(scan, _FLAG)
    if any(word in words for word in _SAID_WORDS):
        yield from _spoken(scan, _SAID)
    if "://" in scan.text and "@" in scan.text:
        yield from _dsn(scan)


def is_secret_name(name: str) -> bool | None:
    """Whether a key's name says that its value is secret: True for sure, None for perhaps, False for no."""
    if len(name) > 128:
        return False
    match = _NAME.match(_CAMEL.sub("_", name).replace("-", "_"))
    if match is None:
        return False
    return True if match.group(1) else None


def is_secret_value(value: str, *, sure: bool) -> bool:
    """Whether a whole value behind a secret's name is one, rather than a placeholder or a word."""
    return _is_secret(value, strong=sure, quoted=True, after="")


def _spoken(scan: Scanned, pattern: Pattern[str]) -> Iterator[Finding]:
    for match in pattern.finditer(scan.lower):
        low, high = match.span(1)
        value = scan.text[low:high].rstrip(".:!?)")
        if _is_secret(value, strong=True, quoted=False, after=""):
            yield Finding("SECRET", low, low + len(value))


def _assigned(scan: Scanned) -> Iterator[Finding]:
    text = scan.text
    done = 0
    for match in _OPERATOR.finditer(scan.words):
        place = match.start()
        if place < done:
            continue
        before = scan.words[max(0, place - 40) : place].decode("latin-1")
        word = _WORD_BEFORE.search(before)
        after = _AFTER.match(text, place)
        if not word or not after:
            continue
        start = after.end()
        quote = text[start : start + 1]
        quote = quote if quote and quote in _QUOTES else ""
        start += len(quote)
        value = _VALUE[quote].match(text, start)
        if not value:
            continue
        done = value.end()
        spelled = value.group()
        if _is_secret(
            spelled, strong=bool(word.group(1)), quoted=bool(quote), after=text[value.end() : value.end() + 1]
        ):
            yield Finding(secret_kind(before), start, value.end())


def secret_kind(name: str) -> str:
    """The kind of what stands behind a name."""
    for kind, pattern in _KINDS:
        if pattern.search(name):
            return kind
    return "SECRET"


def _is_secret(value: str, *, strong: bool, quoted: bool, after: str) -> bool:
    size = len(value)
    if size < 4 or _PLACEHOLDER.match(value):
        return False
    digits = any(char.isdigit() for char in value)
    letters = any(char.isalpha() for char in value)
    symbols = any(not char.isalnum() and char not in "_.- " for char in value)
    if not strong:
        enough = 12 if quoted else 16
        return size >= enough and digits and letters and " " not in value and not _looks_like_code(value)
    if quoted:
        if " " in value:
            return size <= 64 and digits and symbols
        return size >= 6 and (digits or symbols or size >= 10 or value.lower() != value)
    if after and after in _CODE_AFTER:
        return False
    name = _IDENTIFIER.match(value)
    if (name and (not digits or after in {",", ")"})) or _looks_like_code(value):
        return False
    return size >= 6 and (digits or symbols)


def _looks_like_code(value: str) -> bool:
    return any(mark in value for mark in ("(", "[", "self.", "::", "->", "lambda", "=="))


def _headers(scan: Scanned) -> Iterator[Finding]:
    for match in _BEARER.finditer(scan.lower):
        value = match.group(1)
        if len(value) >= 12 and any(char.isdigit() for char in value):
            yield Finding("AUTH_HEADER", *match.span(1))
    for match in _HEADER.finditer(scan.lower):
        low, high = match.span(1)
        value = scan.text[low:high]
        if len(value) >= 6 and not _PLACEHOLDER.match(value):
            yield Finding("AUTH_HEADER", low, high)


def _dsn(scan: Scanned) -> Iterator[Finding]:
    text = scan.text
    place = text.find("://")
    while place >= 0:
        match = _DSN.match(text, place)
        if match:
            value = match.group(2)
            port = value.split("/", 1)[0]
            if not ("/" in value and port.isdigit()) and not _PLACEHOLDER.match(value):
                yield Finding("DSN_PASSWORD", *match.span(2))
        place = text.find("://", place + 3)


def private_keys(text: str) -> Iterator[Finding]:
    """Private keys in PEM, from the first dash to the last; looked for in the whole text, since they are long."""
    place = text.find("-----BEGIN ")
    while place >= 0:
        begin = _KEY_BEGIN.match(text, place)
        if not begin:
            place = text.find("-----BEGIN ", place + 11)
            continue
        body = _KEY_BODY.match(text, begin.end())
        end = _KEY_END.match(text, body.end()) if body else None
        lines = _KEY_LINES.match(text, begin.end())
        stop = end.end() if end else lines.end() if lines else begin.end()
        yield Finding("PRIVATE_KEY", place, stop)
        place = text.find("-----BEGIN ", stop)
