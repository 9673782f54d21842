"""E-mail addresses: international, quoted, escaped for a URL, and spelled out with "at" and "dot"."""

from __future__ import annotations

from collections.abc import Iterator
from re import IGNORECASE
from re import compile as regex

from computeragent.telemetry.redaction.findings import Finding
from computeragent.telemetry.redaction.scanned import Scanned, words

# The first label and its dot belong to the anchor: a run of at signs is passed over without a look at each.
_AT = regex(r"@(?=\w[\w\-]{0,62}\.|\[)")
_LOCAL = regex(r"[\w.+\-&'~]{1,64}\Z")
_QUOTED = regex(r'"[^"\n@]{1,64}"\Z')
_LABEL = r"\w(?:[\w\-]{0,61}\w)?"
_DOMAIN = regex(rf"(?:{_LABEL}\.){{1,8}}({_LABEL})|\[(?:IPv6:)?[0-9A-Fa-f:.]{{4,45}}\]()")
_ESCAPED = regex(r"(?:%40|&#64;|&#x40;|&commat;|\\u0040)(?=\w)", IGNORECASE)
_SPELLED = (
    regex(r"[\[({<] ?(?:at|@|arroba) ?[\])}>]"),
    regex(r" at (?=[\w\-]{2,63}(?: dot |(?:\.| ?[\[({])))"),
)
_DOT = r"(?:\.| ?[\[({<] ?(?:dot|punkt|\.) ?[\])}>] ?| dot )"
_SPELLED_DOMAIN = regex(rf" ?([\w\-]{{1,63}}(?:{_DOT}[\w\-]{{1,63}}){{1,6}})", IGNORECASE)
_LAST_LABEL = regex(rf".*{_DOT}([\w\-]+)\Z", IGNORECASE)
_DOT_WORD = regex(r"[\[({<]| dot ", IGNORECASE)

_COUNTRIES = words(
    """
    ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz ca cc
    cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm fo fr ga
    gd ge gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp
    ke kg kh ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms
    mt mu mv mw mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro
    rs ru rw sa sb sc sd se sg sh si sk sl sm sn so sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt
    tv tw tz ua ug uk us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw
    """
)
_NOT_A_TLD = words(
    """
    png jpg jpeg gif svg webp avif ico bmp tif tiff pdf css scss less js mjs cjs jsx ts tsx json yaml yml toml ini
    cfg conf txt html htm xml csv log lock exe dll bin dat tmp bak tgz tar gz whl jar war class pyc ipynb wasm map
    woff woff2 ttf eot mp4 webm wav service socket timer target mount local internal lan localdomain localhost
    home arpa self value name_ dtype shape astype property setter getter deleter mark fixture patch object
    """
)


def emails(scan: Scanned) -> Iterator[Finding]:
    """E-mail addresses in every spelling."""
    text = scan.text
    if "@" in text and ("." in text or "[" in text):
        yield from _plain(scan)
    # one character is found much faster than several, and clean text mostly lacks these
    if (
        ("%" in text and "%40" in text)
        or ("&" in text and ("&#" in text or "&commat;" in text))
        or ("\\" in text and "\\u0040" in text)
    ):
        yield from _escaped(scan)
    yield from _spelled(scan)


def _plain(scan: Scanned) -> Iterator[Finding]:
    text = scan.text
    for anchor in _AT.finditer(text):
        place = anchor.start()
        if place == 0 or text[place - 1] == "@":
            continue
        domain = _DOMAIN.match(text, place + 1, place + 256)
        if not domain:
            continue
        end = _domain_end(text, place + 1, domain.end(), domain.group(1))
        if not end:
            continue
        start = _local_start(text, place)
        if start is None or _is_address_of_a_host(text, start, place, end):
            continue
        yield Finding("EMAIL", start, end)


def _domain_end(text: str, start: int, end: int, tld: str | None) -> int:
    if not tld:  # an address in brackets
        return end
    while not is_tld(tld):
        # a sentence may go on without a space: try with one label less
        end = end - len(tld) - 1
        labels = text[start:end].split(".")
        if len(labels) < 2 or is_file_ending(tld):
            return 0
        tld = labels[-1]
    after = text[end : end + 1]
    return 0 if after == "_" else end


def is_tld(label: str) -> bool:
    """Whether a domain can end in this label."""
    low = label.lower()
    if low.startswith("xn--"):
        return len(low) > 5
    if not low.isalpha() or not (low == label or low.upper() == label or label.istitle()):
        return False
    if len(low) == 2:
        return not low.isascii() or low in _COUNTRIES
    return 2 < len(low) <= 18 and low not in _NOT_A_TLD


def is_file_ending(label: str) -> bool:
    """Whether a label is the ending of a file or a host, which makes the whole thing no mail domain."""
    return label.lower() in _NOT_A_TLD or label.isdigit()


def _local_start(text: str, place: int) -> int | None:
    if text[place - 1] == '"':
        quoted = _QUOTED.search(text, max(0, place - 66), place)
        return quoted.start() if quoted else None
    low = max(0, place - 65)
    piece = text[low:place]
    size = len(piece)
    index = size
    while index and (piece[index - 1].isalnum() or piece[index - 1] in "._+-&'~"):
        index -= 1
    local = _LOCAL.match(piece, index)
    if not local or size - index > 64:
        return None
    start = low + index
    while start < place and text[start] in "'.&~-":
        start += 1
    return start if start < place else None


def _is_address_of_a_host(text: str, start: int, place: int, end: int) -> bool:
    """Whether it is ``user@host`` of a URL or of git, or a file name such as ``logo@2x.png``."""
    if text[start:place] in {"git", "hg", "svn"}:
        return True
    after = text[end : end + 2]
    if after[:1] == ":" and after[1:] and (after[1] in "/~" or after[1].isalpha()):
        return True
    before = text[max(0, start - 80) : start]
    scheme = before.rfind("://")
    return scheme >= 0 and not any(char in " /\n\t\"'<>?=,;" for char in before[scheme + 3 :])


def _escaped(scan: Scanned) -> Iterator[Finding]:
    text = scan.text
    for match in _ESCAPED.finditer(text):
        domain = _DOMAIN.match(text, match.end(), match.end() + 255)
        if not domain or match.start() == 0:
            continue
        end = _domain_end(text, match.end(), domain.end(), domain.group(1))
        start = _local_start(text, match.start())
        if end and start is not None:
            yield Finding("EMAIL", start, end)


def _spelled(scan: Scanned) -> Iterator[Finding]:
    text, words = scan.text, scan.words
    bracketed = ("[" in text and (b"at]" in words or b"[@" in words)) or (
        "(" in text and (b"at)" in words or b"(@" in words)
    )
    dotted = b"dot" in words
    if bracketed or (dotted and any(sign in text for sign in "[({<")):
        for match in _SPELLED[0].finditer(scan.lower):
            yield from _spelled_at(scan, *match.span())
    if dotted and b" at " in words:
        for match in _SPELLED[1].finditer(scan.lower):
            yield from _spelled_at(scan, *match.span(), said=True)


def _spelled_at(scan: Scanned, place: int, after: int, *, said: bool = False) -> Iterator[Finding]:
    text = scan.text
    domain = _SPELLED_DOMAIN.match(text, after, after + 300)
    last = _LAST_LABEL.match(domain.group(1)) if domain else None
    if not domain or not last or not is_tld(last.group(1)) or (said and not _DOT_WORD.search(domain.group(1))):
        return
    end = place
    while place and text[place - 1] == " " and end - place < 2:
        place -= 1
    start = _local_start(text, place) if place else None
    if start is None:
        return
    # "first dot last at …" is one local part
    while end - start < 80:
        head = text[max(0, start - 6) : start].lower()
        dot = next((mark for mark in (" dot ", "[dot]", "(dot)") if head.endswith(mark)), None)
        further = _local_start(text, start - len(dot)) if dot and start > len(dot) else None
        if further is None:
            break
        start = further
    yield Finding("EMAIL", start, domain.end())
