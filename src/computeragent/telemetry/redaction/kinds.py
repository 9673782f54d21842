"""The table of what is found: every kind, its detector's name, and what makes the detector believe a match."""

from __future__ import annotations

from collections.abc import Iterable

from computeragent.errors import ValidationError

KINDS: dict[str, str] = {
    "EMAIL": "International, quoted, `%40`-escaped and `[at]`/`[dot]` spellings; ends in a possible top-level domain",
    "PHONE": "E.164 with a country code and a fitting length; national spellings; others beside a word such as `tel`",
    "US_SSN": "Valid area, group and serial; without dashes only beside a word such as `ssn`",
    "UK_NINO": "National Insurance number: valid prefix letters",
    "ES_DNI": "DNI and NIE: check letter",
    "IT_CODICE_FISCALE": "Check letter",
    "FR_NIR": "Key modulo 97, Corsica included",
    "DE_STEUER_ID": "ISO 7064 mod 11,10 and the rule on repeated digits; bare only beside a word",
    "NL_BSN": "Eleven-test, beside a word",
    "BE_NRN": "Check modulo 97; bare only beside a word",
    "PL_PESEL": "Check digit and date, beside a word",
    "SE_PERSONNUMMER": "Luhn and date; without its dash only beside a word",
    "FI_HETU": "Check character and date",
    "BR_CPF": "Both check digits; bare only beside a word",
    "IN_AADHAAR": "Verhoeff; bare only beside a word",
    "CA_SIN": "Luhn, beside a word",
    "CN_RESIDENT_ID": "ISO 7064 mod 11-2 and date",
    "CARD": "Range and length of an issuer, and Luhn; other lengths than 15 and 16 in groups or beside a word",
    "IBAN": "Length of its country and modulo 97",
    "IP": "IPv4 and IPv6, but not loopback, unspecified, multicast, netmasks, versions, networks",
    "AWS_ACCESS_KEY_ID": "`AKIA`, `ASIA` and the other prefixes",
    "AWS_SECRET_KEY": "40 characters that look random, the more so without a word nearby",
    "AWS_SESSION_TOKEN": "Behind its name, or by how it begins",
    "PROVIDER_KEY": "Models: `sk-ant-`, `sk-proj-`, `sk-`, `AIza`, `hf_`, `gsk_`, `xai-`, `r8_`, `pplx-` and more",
    "VCS_TOKEN": "`ghp_`, `gho_`, `ghs_`, `ghu_`, `ghr_`, `github_pat_`, `glpat-` and kin, `ATBB`, `ATCTT3`, `BBDC-`",
    "SLACK_TOKEN": "`xoxb-`, `xoxp-` and kin, `xapp-`",
    "STRIPE_KEY": "`sk_live_`, `rk_live_`, their test forms, `whsec_`",
    "PACKAGE_TOKEN": "`npm_`, `pypi-`, `dckr_pat_`, `rubygems_` and more",
    "SERVICE_TOKEN": "SendGrid, Vault, Databricks, Shopify, Grafana, New Relic, Telegram and more, by prefix",
    "COMPUTERAGENT_KEY": "`cak_`",
    "JWT": "Its header decodes to JSON with an algorithm or a type",
    "DSN_PASSWORD": "The password in `scheme://user:password@host`",
    "PRIVATE_KEY": "PEM blocks, encrypted and PGP ones included, also when cut off",
    "AUTH_HEADER": "What follows `Authorization:`, `Bearer` and `Cookie:`",
    "SECRET": "What stands behind a name such as `password` or `api_key`, unless it is a placeholder or code",
    "KNOWN_VALUE": "A secret given to `known_values`, in plain, URL-encoded, JSON-escaped, hex and base64 form",
    "CUSTOM": "A pattern given as `extra_patterns`",
    "PATH": "A value at a path of `path_denylist`",
    "CYCLE": "A container that holds itself",
    "DEPTH": "What is nested too deeply to be looked at",
}
"""Every kind and what it takes to be found."""

_ALWAYS = frozenset({"KNOWN_VALUE", "CUSTOM", "PATH", "CYCLE", "DEPTH"})
DETECTORS: dict[str, str] = {kind.lower(): kind for kind in KINDS if kind not in _ALWAYS}
"""The names that `detectors=` takes, and their kinds."""
SECRETS = (
    "aws_access_key_id", "aws_secret_key", "aws_session_token", "provider_key", "vcs_token", "slack_token",
    "stripe_key", "package_token", "service_token", "computeragent_key", "jwt", "dsn_password", "private_key",
    "auth_header", "secret",
)  # fmt: skip
"""Those of them that find secrets, and no personal data."""


def chosen(detectors: Iterable[str] | None) -> frozenset[str]:
    """The kinds of the named detectors; all of them for None."""
    if detectors is None:
        return frozenset(DETECTORS.values())
    given = [detectors] if isinstance(detectors, str) else list(detectors)
    unknown = [name for name in given if name.lower() not in DETECTORS]
    if unknown:
        raise ValidationError(
            f"no such detector: {', '.join(unknown)}", hint=f"Detectors are {', '.join(sorted(DETECTORS))}."
        )
    return frozenset(DETECTORS[name.lower()] for name in given)
