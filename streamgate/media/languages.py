"""Languages: from what files say (ISO 639-2) to what manifests and people need (BCP 47, native names).

Sources: ISO 639-2 (bibliographic and terminologic codes), RFC 5646 (BCP 47; section 2.2.1: the shortest code is right).
"""

from __future__ import annotations

import re

# ISO 639-1, ISO 639-2/T, ISO 639-2/B (where it differs), the language's own name.
_TABLE = (
    ("af", "afr", "", "Afrikaans"),
    ("am", "amh", "", "አማርኛ"),
    ("ar", "ara", "", "العربية"),
    ("az", "aze", "", "Azərbaycan dili"),
    ("be", "bel", "", "Беларуская"),
    ("bg", "bul", "", "Български"),
    ("bn", "ben", "", "বাংলা"),
    ("bs", "bos", "", "Bosanski"),
    ("ca", "cat", "", "Català"),
    ("cs", "ces", "cze", "Čeština"),
    ("cy", "cym", "wel", "Cymraeg"),
    ("da", "dan", "", "Dansk"),
    ("de", "deu", "ger", "Deutsch"),
    ("el", "ell", "gre", "Ελληνικά"),
    ("en", "eng", "", "English"),
    ("eo", "epo", "", "Esperanto"),
    ("es", "spa", "", "Español"),
    ("et", "est", "", "Eesti"),
    ("eu", "eus", "baq", "Euskara"),
    ("fa", "fas", "per", "فارسی"),
    ("fi", "fin", "", "Suomi"),
    ("fr", "fra", "fre", "Français"),
    ("ga", "gle", "", "Gaeilge"),
    ("gl", "glg", "", "Galego"),
    ("gu", "guj", "", "ગુજરાતી"),
    ("ha", "hau", "", "Hausa"),
    ("he", "heb", "", "עברית"),
    ("hi", "hin", "", "हिन्दी"),
    ("hr", "hrv", "scr", "Hrvatski"),
    ("hu", "hun", "", "Magyar"),
    ("hy", "hye", "arm", "Հայերեն"),
    ("id", "ind", "", "Bahasa Indonesia"),
    ("ig", "ibo", "", "Igbo"),
    ("is", "isl", "ice", "Íslenska"),
    ("it", "ita", "", "Italiano"),
    ("ja", "jpn", "", "日本語"),
    ("ka", "kat", "geo", "ქართული"),
    ("kk", "kaz", "", "Қазақ тілі"),
    ("km", "khm", "", "ខ្មែរ"),
    ("kn", "kan", "", "ಕನ್ನಡ"),
    ("ko", "kor", "", "한국어"),
    ("la", "lat", "", "Latina"),
    ("lo", "lao", "", "ລາວ"),
    ("lt", "lit", "", "Lietuvių"),
    ("lv", "lav", "", "Latviešu"),
    ("mk", "mkd", "mac", "Македонски"),
    ("ml", "mal", "", "മലയാളം"),
    ("mn", "mon", "", "Монгол"),
    ("mr", "mar", "", "मराठी"),
    ("ms", "msa", "may", "Bahasa Melayu"),
    ("my", "mya", "bur", "မြန်မာ"),
    ("nb", "nob", "", "Norsk bokmål"),
    ("ne", "nep", "", "नेपाली"),
    ("nl", "nld", "dut", "Nederlands"),
    ("nn", "nno", "", "Norsk nynorsk"),
    ("no", "nor", "", "Norsk"),
    ("pa", "pan", "", "ਪੰਜਾਬੀ"),
    ("pl", "pol", "", "Polski"),
    ("pt", "por", "", "Português"),
    ("ro", "ron", "rum", "Română"),
    ("ru", "rus", "", "Русский"),
    ("si", "sin", "", "සිංහල"),
    ("sk", "slk", "slo", "Slovenčina"),
    ("sl", "slv", "", "Slovenščina"),
    ("so", "som", "", "Soomaali"),
    ("sq", "sqi", "alb", "Shqip"),
    ("sr", "srp", "scc", "Српски"),
    ("sv", "swe", "", "Svenska"),
    ("sw", "swa", "", "Kiswahili"),
    ("ta", "tam", "", "தமிழ்"),
    ("te", "tel", "", "తెలుగు"),
    ("th", "tha", "", "ไทย"),
    ("tl", "tgl", "", "Tagalog"),
    ("tr", "tur", "", "Türkçe"),
    ("uk", "ukr", "", "Українська"),
    ("ur", "urd", "", "اردو"),
    ("uz", "uzb", "", "Oʻzbekcha"),
    ("vi", "vie", "", "Tiếng Việt"),
    ("xh", "xho", "", "isiXhosa"),
    ("yi", "yid", "", "ייִדיש"),
    ("yo", "yor", "", "Yorùbá"),
    ("zh", "zho", "chi", "中文"),
    ("zu", "zul", "", "isiZulu"),
    ("", "fil", "", "Filipino"),
    ("", "yue", "", "粵語"),
    ("", "cmn", "", "普通话"),
)
# Codes that ISO withdrew (RFC 5646 section 3.1.7: deprecated, with a preferred value).
_WITHDRAWN = {"iw": "he", "in": "id", "ji": "yi", "jw": "jv", "mo": "ro"}

_SHORTEST = {three: one for one, *codes, _ in _TABLE for three in codes if one and three} | _WITHDRAWN
_TERMINOLOGIC = {one or t: t for one, t, _, _ in _TABLE}
_NAMES = {one or t: name for one, t, _, name in _TABLE}
# Names that a language's name and a subtag in brackets would say badly.
_VARIANTS = {
    "zh-Hans": "简体中文",
    "zh-Hant": "繁體中文",
    "zh-CN": "简体中文",
    "zh-TW": "繁體中文",
    "sr-Latn": "Srpski",
}

_TAG = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")


def bcp47(code: str) -> str:
    """The shortest BCP 47 tag for an ISO 639 code or a tag: 'eng' and 'en' give 'en', 'pt_br' gives 'pt-BR'.

    '' for what names no language: 'und', nothing, or what is no tag at all. Unknown languages pass through.
    """
    code = code.strip().replace("_", "-")
    if not _TAG.fullmatch(code):
        return ""
    language, *subtags = code.split("-")
    language = language.lower()
    if language == "und":
        return ""
    return "-".join([_SHORTEST.get(language, language), *_cased(subtags)])


def _cased(subtags: list[str]) -> list[str]:
    """Subtags as RFC 5646 section 2.1.1 writes them: a script like Latn, a region like BR, everything else small."""
    cased = []
    extension = False  # behind a singleton everything is small
    for subtag in subtags:
        if extension or len(subtag) not in (2, 4) or not subtag.isalpha():
            cased.append(subtag.lower())
        else:
            cased.append(subtag.upper() if len(subtag) == 2 else subtag.title())
        extension |= len(subtag) == 1
    return cased


def iso639_2(code: str) -> str:
    """The terminologic three-letter code, as ``mdhd`` and MPEG-TS descriptors want it; 'und' when there is none."""
    language = bcp47(code).partition("-")[0]
    return _TERMINOLOGIC.get(language) or (language if len(language) == 3 else "und")


def native_name(code: str) -> str:
    """What speakers call the language: 'eng' gives 'English', 'pt-BR' gives 'Português (BR)'.

    Unknown languages give their tag, and what names no language gives ''.
    """
    tag = bcp47(code)
    language, _, subtags = tag.partition("-")
    if tag in _VARIANTS:
        return _VARIANTS[tag]
    name = _NAMES.get(language)
    if name is None:
        return tag
    return f"{name} ({subtags})" if subtags else name
