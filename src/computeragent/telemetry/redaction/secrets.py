"""Secrets known by what stands before them: assignments, headers, URLs with a password, private keys."""

from __future__ import annotations

from collections.abc import Iterator
from re import ASCII, DOTALL, IGNORECASE
from re import compile as regex

from computeragent.telemetry.redaction.findings import Finding
from computeragent.telemetry.redaction.scanned import Scanned, words

_SURE = words(
    """
    password passwd passwort contraseña mot_de_passe passphrase pwd client_secret secret_key api_key access_key
    private_key signing_key encryption_key account_key shared_key auth_key session_key master_key access_token
    auth_token refresh_token session_token bearer_token id_token api_token oauth_token bot_token deploy_token
    personal_token github_token gitlab_token slack_token csrf_token security_token private_token client_token
    app_secret webhook_secret jwt_secret consumer_secret secret_access_key conn_str connection_string
    connection_str
    """
)
_SURE_ENDS = tuple(sorted({form for name in _SURE for form in (name, name.replace("_", ""))}))
_PERHAPS_ENDS = ("secret", "token", "credential", "passcode", "pin_code", "_key", "_auth", "_pass")
_HEADER_ENDS = ("authorization", "_auth", "api_key", "apikey", "_token")
_CAMEL = regex(r"(?<=[a-z0-9])(?=[A-Z])")
_WORDS = regex(r"\w+")
# The last two letters of all the words above: an operator is looked at only where they stand before it.
_ENDS = rb"(?<=(?:[rw]d|[re]t|[sdi]e|ey|[eo]n|al|[ltnydesk]s|ng|tr|th|\xf1a)"
_GAP = rb"[\s\"'\])]"
_OPERATOR = regex(
    # the one character before first: it spares most operators the rest
    b"=(?:(?<=[a-z\xf1]=)"
    + _ENDS
    + b"=)|(?<="
    + _GAP
    + b"=)(?:"
    + b"|".join(_ENDS + _GAP * size + b"=)" for size in range(1, 4))
    + b"))",
    DOTALL,
)
_AFTER = regex(r"[:=]{1,2}>?\s{0,3}")
_QUOTES = "\"'`"
_VALUE = {
    '"': regex(r'[^"\n]{1,4096}'),
    "'": regex(r"[^'\n]{1,4096}"),
    "`": regex(r"[^`\n]{1,4096}"),
    "": regex(r"[^\s\"'`<>,;&|)}\]]{1,4096}"),
}
_PLACEHOLDER = regex(
    r"(?:\W*|x{3,}|\*+.*|<.*|\$[({]?\w.*|%\(?\w+\)?[sd]?|\{.*|\[.*|none|null|nil|true|false"
    r"|undefined|required|optional|default|redacted"
    r"|str|string|text|int|bytes|bool|any|object|self|cls|changeme|example|hidden|masked"
    r"|your[_\- ].*|my[_\- ].*|enter .*|the .*"
    r"|(?:.*[_.\-])?(?:password|passwd|secret|token|key|apikey|api_key|credentials?|passphrase|name|type|value|field|input|env)s?"
    r"|os\.environ.*|process\.env.*|env\..*|getpass.*|.*\(.*)\Z",
    IGNORECASE | DOTALL,
)
_DIGIT, _LETTER, _SYMBOL = regex("[0-9]"), regex("[A-Za-z]"), regex(r"[^A-Za-z0-9_.\- ]")
_IDENTIFIER = regex(r"[A-Za-z_][A-Za-z_.]*[0-9]?\Z", ASCII)
_CODE_AFTER = "([."
_KINDS = (
    (
        "AWS_SESSION_TOKEN",
        regex(r"(?:aws|security|amz).{0,5}session_?token|aws_security_token|x_amz_security_token", IGNORECASE),
    ),
    ("AWS_SECRET_KEY", regex(r"secret_?access_?key|aws_secret_?key", IGNORECASE)),
)
_FLAG = regex(
    r"--(?=[A-Za-z])(?<![\w\-]--)(?i:(?:[a-z0-9]{1,20}-){0,3}"
    r"(?:password|passwd|passphrase|pwd|token|secret|api-?key|access-key|secret-key)"
    r"[ =]\s{0,2}[\"']?([^\s\"'`,;]{4,512}))"
)
# The patterns below read the lower-case form in which "-" is "_" and ":" is "=".
_SAID = regex(
    r"(?:passwor[dt]|passphrase|pwd|passcode)(?: is|'s| was| ist| es)(?: now| set to)?=? [\"'`]?([^\s\"'`,;]{4,512})"
)
_BEARER = regex(r"bearer[ \t]{1,3}([a-z0-9\-._~+/=]{8,8192})")
_HEADER = regex(r"[:=,]\s{0,2}[\"']?(?i:basic|bearer|token|digest|apikey|negotiate|bot)[ \t]{1,3}([^\s\"',;]{4,8192})")
_OPAQUE = regex(r"[\w\-.~+/=%]{8}")
_COOKIE = regex(r":\s{0,2}[\"']?(?=[\w.\-]{1,64}=)([^\n\"']{8,8192})", ASCII)
_DSN = regex(r"://([^\s:/@\"'<>\\]{0,256}):([^\s@\"'<>]{1,512})@(?=[\w\[%$])", ASCII)
_LONGEST_PHRASE = 64
_JUDGED = 128
_LONGEST_DSN = 3 + 256 + 1 + 512
_LONGEST_KEY = 64 * 1024
_KEY_BEGIN = regex(r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_KEY_BODY = regex(r"[A-Za-z0-9+/=\s\\:,.()\"']*(?:-(?!----)[A-Za-z0-9+/=\s\\:,.()\"']*)*", ASCII)
_KEY_LINES = regex(r"(?:\s|\\[nr]|[A-Za-z0-9+/=]{16,})*", ASCII)
_KEY_END = regex(r"-----END (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----")


def secrets(scan: Scanned) -> Iterator[Finding]:
    """Values behind a name that says they are secret."""
    yield from _assigned(scan)
    text, lower = scan.text, scan.words
    if b"bearer" in lower:
        for match in _BEARER.finditer(scan.lower):
            value = match.group(1)
            if len(value) >= 12 and any(char.isdigit() for char in value):
                yield Finding("AUTH_HEADER", *match.span(1))
    # in a row of dashes no place is looked at, hence the table in which every letter is the same
    if "-" in text and (b"--a" in scan.shapes or b"--A" in scan.shapes):
        for match in _FLAG.finditer(text):
            yield from _spoken(text, *match.span(1))
    if b"pass" in lower or b"pwd" in lower:
        place = 0
        while match := _SAID.search(scan.lower, place):
            yield from _spoken(text, *match.span(1))
            place = match.start() + 3
    if "@" in text and "://" in text:
        yield from _dsn(text)


def is_secret_name(name: str) -> bool | None:
    """Whether a key's name says that its value is secret: True for sure, None for perhaps, False for no."""
    return _named(_CAMEL.sub("_", name).replace("-", "_").replace(" ", "_").lower()) if len(name) <= 128 else False


def _named(name: str) -> bool | None:
    single = name.removesuffix("s")
    if name.endswith(_SURE_ENDS) or single.endswith(_SURE_ENDS):
        return True
    return None if single.endswith(_PERHAPS_ENDS) else False


def is_secret_value(value: str, *, sure: bool) -> bool:
    """Whether a whole value behind a secret's name is one, rather than a placeholder or a word."""
    if sure:
        return len(value) >= 4 and not _PLACEHOLDER.match(value)
    return _is_secret(value, strong=False, quoted=True, after="")


def _spoken(text: str, start: int, end: int) -> Iterator[Finding]:
    value = text[start:end].rstrip(".:!?)")
    if _is_secret(value, strong=True, quoted=False, after=""):
        yield Finding("SECRET", start, start + len(value))


def _assigned(scan: Scanned) -> Iterator[Finding]:
    text = scan.text
    done = 0
    while match := _OPERATOR.search(scan.words, done):
        place = match.start()
        done = match.end()
        before = _WORDS.findall(scan.words[max(0, place - 40) : place].decode("latin-1"))
        name = "_".join(before[-2:])
        if name.endswith((*_HEADER_ENDS, "cookie")):
            headed = (_COOKIE if name.endswith("cookie") else _HEADER).match(text, place)
            # by how it begins: what stands far off in the line decides nothing
            begins = headed.group(1)[:_JUDGED] if headed else ""
            if headed and not _PLACEHOLDER.match(begins) and _OPAQUE.search(begins):
                done = headed.end()
                yield Finding("AUTH_HEADER", *headed.span(1))
                continue
        sure = _named(name)
        after = _AFTER.match(text, place) if sure is not False else None
        if not after:
            continue
        start = after.end()
        quote = text[start : start + 1]
        quote = quote if quote and quote in _QUOTES else ""
        start += len(quote)
        value = _VALUE[quote].match(text, start)
        if not value:
            continue
        spelled = value.group()
        if quote and len(spelled) > _LONGEST_PHRASE and " " in spelled:
            continue  # a text, in which others may stand
        done = value.end()
        if _is_secret(spelled, strong=bool(sure), quoted=bool(quote), after=text[value.end() : value.end() + 1]):
            yield Finding(secret_kind(name), start, value.end())


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
    if value.isascii():
        digits, letters, symbols = bool(_DIGIT.search(value)), bool(_LETTER.search(value)), bool(_SYMBOL.search(value))
    else:
        digits = any(char.isdigit() for char in value)
        letters = any(char.isalpha() for char in value)
        symbols = any(not char.isalnum() and char not in "_.- " for char in value)
    if not strong:
        enough = 12 if quoted else 16
        return size >= enough and digits and letters and " " not in value and not _looks_like_code(value)
    if quoted:
        if " " in value:
            return size <= _LONGEST_PHRASE and digits and symbols
        return size >= 6 and (digits or symbols or size >= 10 or value.lower() != value)
    if after and after in _CODE_AFTER:
        return False
    name = _IDENTIFIER.match(value)
    if (name and (not digits or after in {",", ")"})) or _looks_like_code(value):
        return False
    return size >= 6 and (digits or symbols)


def _looks_like_code(value: str) -> bool:
    return any(mark in value for mark in ("(", "[", "self.", "::", "->", "lambda"))


def _dsn(text: str) -> Iterator[Finding]:
    place = text.find("://")
    at = -1
    while place >= 0:
        if at < place:
            at = text.find("@", place)
        if at < 0:
            return
        if at - place > _LONGEST_DSN:
            place = text.find("://", at - _LONGEST_DSN)
            continue
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
        # no key is longer, and no look may take long
        most = begin.end() + _LONGEST_KEY
        body = _KEY_BODY.match(text, begin.end(), most)
        end = _KEY_END.match(text, body.end()) if body else None
        lines = _KEY_LINES.match(text, begin.end(), most)
        stop = end.end() if end else lines.end() if lines else begin.end()
        yield Finding("PRIVATE_KEY", place, stop)
        place = text.find("-----BEGIN ", stop)
