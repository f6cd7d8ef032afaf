"""Common Access Tokens: base64url, then the envelope, then key, then MAC, and only then claims.

Of algorithms HMAC-SHA256 and nothing else: a signature (COSE_Sign1) is right if somebody told so, who had the time to look.
CTA-5007; RFC 8392 (CWT), RFC 9052 and 9053 (COSE), RFC 8949 (CBOR), RFC 9164 (networks). Claims are yes, no or unknown,
and unknown is a refusal: what is not evaluated here restricts nevertheless.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from streamgate.native.cbor cimport (
    cbor_float, cbor_head, cbor_label, cbor_map, cbor_next_is, cbor_next_label, cbor_open_array, cbor_open_map,
    cbor_read_head, cbor_read_string, cbor_skip, cbor_small,
)
from streamgate.native.claims cimport NO, UNKNOWN, YES, Asked, Claims, bit_of, components, methods, networks, read_claims
from streamgate.native.cose cimport COVERED, Envelope, put_covered, read_envelope

from streamgate.errors import StreamGateError

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    void* PyUnicode_DATA(object text)

cdef extern from "base64url.h" nogil:
    Py_ssize_t base64url_decode(const uint8_t* text, size_t size, uint8_t* out)

cdef extern from "sha256.h" nogil:
    ctypedef struct SHA256_CTX:
        pass
    int SHA256_Init(SHA256_CTX* c)
    int SHA256_Update(SHA256_CTX* c, const void* data, size_t size)
    int SHA256_Final(unsigned char* digest, SHA256_CTX* c)
    int CRYPTO_memcmp(const void* a, const void* b, size_t size)
    void OPENSSL_cleanse(void* p, size_t size)
    const char* OpenSSL_version(int kind)
    int OPENSSL_VERSION

CODES = (
    "", "token_too_long", "token_malformed", "token_algorithm", "token_key", "token_signature", "token_missing_claim",
    "token_issuer", "token_audience", "token_revoked", "token_expired", "token_not_yet_valid", "token_method",
    "token_path", "token_network", "token_unsupported",
)
CLAIMS = {
    "iss": 1, "sub": 2, "aud": 3, "exp": 4, "nbf": 5, "iat": 6, "cti": 7, "cnf": 8, "or": 41, "nor": 42, "and": 43,
    "enc": 44, "crit": 45, "geohash": 282, "catreplay": 308, "catpor": 309, "catv": 310, "catnip": 311, "catu": 312,
    "catm": 313, "catalpn": 314, "cath": 315, "catgeoiso3166": 316, "catgeocoord": 317, "catgeoalt": 318,
    "cattpk": 319, "catifdata": 320, "catdpop": 321, "catif": 322, "catr": 323, "cattprint": 324,
}
OPENSSL = OpenSSL_version(OPENSSL_VERSION).decode()

cdef enum:
    MAC = 32
    HS256 = 5               # RFC 9053 section 3.1; the next two: sections 2.1, RFC 8230 section 2
    ES256 = -7
    PS256 = -37
    GRACE = 30              # s after exp in which a token still counts; fixed
    SKEW = 60               # s before nbf in which it counts already
    CATR = 323

# Keys, tokens, and who looks at both.

cdef int refuse(int code) except -1:
    raise StreamGateError(CODES[code])


cdef const uint8_t* borrow(object text, size_t* size, list held):
    """The characters of a str or bytes. A str that is not ASCII is encoded, and kept in ``held``; what cannot be becomes "?"."""
    if isinstance(text, str):
        if PyUnicode_IS_ASCII(text):
            size[0] = PyUnicode_GET_LENGTH(text)
            return <const uint8_t*> PyUnicode_DATA(text)
        text = (<str> text).encode("utf-8", "replace")
        held.append(text)
    size[0] = PyBytes_GET_SIZE(<bytes?> text)
    return <const uint8_t*> PyBytes_AS_STRING(<bytes> text)


cdef tuple encoded(texts):
    return tuple([text.encode() for text in texts])


@cython.final
@cython.no_gc
cdef class Key:
    def __init__(self, bytes kid not None, bytes secret not None, *, str issuer not None, audience=(),
                 require=("iss", "exp", "cti", "aud"), prefixes=(), bint leased=True, int algorithm=HS256):
        cdef uint8_t pad[64]
        cdef SHA256_CTX* states
        cdef size_t i
        cdef uint8_t fill
        if algorithm not in (HS256, ES256, PS256) or (leased and algorithm != HS256):
            raise StreamGateError("config_invalid", "a key is for HS256, or of another issuer and for ES256 or PS256")
        if not kid or (len(secret) < MAC if algorithm == HS256 else len(secret) != 0):
            raise StreamGateError("config_invalid", f"a key has a kid and, for HS256 alone, a secret of at least {MAC} bytes")
        if unknown := sorted(set(require) - CLAIMS.keys()):
            raise StreamGateError("config_invalid", f"{unknown[0]!r} is no claim that can be required")
        self.kid, self.issuer, self.leased, self.algorithm = kid, issuer, leased, algorithm
        self.audience, self.require, self.prefixes = tuple(audience), tuple(require), tuple(prefixes)
        self.issuer_text = issuer.encode()
        self.audience_texts, self.prefix_texts = encoded(audience), encoded(prefixes)
        self.required = 0
        for name in require:
            self.required |= bit_of(CLAIMS[name])
        if algorithm != HS256:
            return
        if self.states == NULL:
            self.states = malloc(2 * sizeof(SHA256_CTX))
            if self.states == NULL:
                raise MemoryError
        states = <SHA256_CTX*> self.states
        memset(pad, 0, 64)
        if len(secret) > 64:        # RFC 2104 section 2
            SHA256_Init(&states[0])
            SHA256_Update(&states[0], PyBytes_AS_STRING(secret), len(secret))
            SHA256_Final(pad, &states[0])
        else:
            memcpy(pad, PyBytes_AS_STRING(secret), len(secret))
        for i in range(2):
            fill = 0x36 if i == 0 else 0x36 ^ 0x5C
            fill_pad(pad, fill)
            SHA256_Init(&states[i])
            SHA256_Update(&states[i], pad, 64)
        OPENSSL_cleanse(pad, 64)

    def __dealloc__(self):
        if self.states != NULL:
            OPENSSL_cleanse(self.states, 2 * sizeof(SHA256_CTX))
            free(self.states)

    def __reduce__(self):
        raise TypeError("a key is not pickled")

    cdef bint authentic(self, const uint8_t* message, size_t size, const uint8_t* tag) noexcept:
        cdef const SHA256_CTX* states = <const SHA256_CTX*> self.states
        cdef SHA256_CTX context = states[0]
        cdef uint8_t digest[MAC]
        SHA256_Update(&context, message, size)
        SHA256_Final(digest, &context)
        context = states[1]
        SHA256_Update(&context, digest, MAC)
        SHA256_Final(digest, &context)
        return CRYPTO_memcmp(digest, tag, MAC) == 0

    cdef bytes identify(self, bytes covered):
        """What a token is known by, however its envelope, or its signature, is written."""
        cdef bytes named = self.kid + covered
        return digest_of(<const uint8_t*> PyBytes_AS_STRING(named), len(named))

    cdef bint covers(self, const uint8_t* path, size_t size) noexcept:
        """Whether its tokens may open ``path`` at all."""
        cdef bytes prefix
        if self.prefix_texts is None or not self.prefix_texts:
            return True
        for prefix in self.prefix_texts:
            if <size_t> len(prefix) <= size and memcmp(PyBytes_AS_STRING(prefix), path, len(prefix)) == 0:
                return True
        return False

    cdef bint meant(self, const uint8_t* at, const uint8_t* end) noexcept:
        """Whether one of its audiences is among those that begin at ``at``, a claim of good form."""
        cdef uint64_t left = 1
        cdef const uint8_t* text = NULL
        cdef size_t size = 0
        cdef bytes ours
        if at[0] >> 5 == 4:
            cbor_open_array(&at, end, 1, &left)
        while left:
            cbor_read_string(&at, end, 3, &text, &size)
            for ours in self.audience_texts:
                if <size_t> len(ours) == size and memcmp(PyBytes_AS_STRING(ours), text, size) == 0:
                    return True
            left -= 1
        return False


cdef void fill_pad(uint8_t* pad, uint8_t fill) noexcept:
    cdef int i
    for i in range(64):
        pad[i] ^= fill


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Token:
    def __init__(self, *args, **kwargs):
        raise TypeError("a Verifier makes tokens")

    @property
    def kid(self):
        return None if self.key is None else self.key.kid

    @property
    def session(self):
        return self.handle[:self.handle_size]

    @property
    def unsupported(self):
        return self.unknown

    def payload_claims(self):
        cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(self.payload)
        return build(&at, at + PyBytes_GET_SIZE(self.payload))

    cdef int decide(self, const Asked* asked) noexcept:
        cdef const uint8_t* begin = <const uint8_t*> PyBytes_AS_STRING(self.payload)
        cdef const uint8_t* end = begin + PyBytes_GET_SIZE(self.payload)
        cdef const uint8_t* at
        cdef bint unknown = self.unknown
        cdef int answer
        if asked.now >= self.deadline:
            return EXPIRED
        if asked.now < self.start:
            return NOT_YET_VALID
        if self.catm:
            at = begin + self.catm
            if methods(&at, end, 2, asked) != YES:
                return METHOD
        if not self.key.covers(asked.path, asked.path_size):
            return PATH
        if self.catu:
            at = begin + self.catu
            answer = components(&at, end, 2, asked)
            if answer != YES and answer != UNKNOWN:
                return PATH
            unknown = unknown or answer == UNKNOWN
        if self.catnip:
            at = begin + self.catnip
            answer = networks(&at, end, 2, asked)
            if answer != YES and answer != UNKNOWN:
                return NETWORK
            unknown = unknown or answer == UNKNOWN
        return UNSUPPORTED if unknown else ACCEPTED

    def check(self, *, str method not None="GET", str scheme not None="https", str host not None="",
              str path not None, bytes address not None=b"", int64_t now):
        return judge(None, self, method, scheme, host, path, address, now)


cdef object judge(Verifier verifier, Token token, str method, str scheme, str host, str path, bytes address, int64_t now):
    """Ask the verifier, or the token alone, on behalf of Python; raises what they refuse."""
    cdef Asked asked
    cdef list held = []
    cdef int code
    if token.key is None:
        raise TypeError("a Verifier makes tokens")
    if len(address) not in (0, 4, 16):
        raise StreamGateError("internal", "an address has 4 or 16 bytes")
    asked.method = borrow(method, &asked.method_size, held)
    asked.scheme = borrow(scheme, &asked.scheme_size, held)
    asked.host = borrow(host, &asked.host_size, held)
    asked.path = borrow(path, &asked.path_size, held)
    asked.address, asked.address_size = <const uint8_t*> PyBytes_AS_STRING(address), <int> len(address)
    asked.now = now
    code = token.decide(&asked) if verifier is None else verifier.decide(token, &asked)
    if code != ACCEPTED:
        refuse(code)
    return None


cdef bytes digest_of(const uint8_t* data, size_t size):
    cdef uint8_t digest[MAC]
    cdef SHA256_CTX context
    SHA256_Init(&context)
    SHA256_Update(&context, data, size)
    SHA256_Final(digest, &context)
    return digest[:MAC]


cdef int64_t due_of(const uint8_t* at, const uint8_t* end, int64_t exp) noexcept:
    """When a token ought to be renewed, in s since 1970, by the catr among claims of good form: so long before its exp as that
    says (2), or half of the time that it adds (1).
    """
    cdef cbor_map claims, parts
    cdef cbor_label label
    cdef cbor_head head
    cdef uint64_t added = 0, ahead = 0
    cdef bint told = False
    cbor_open_map(&at, end, 1, &claims)
    while claims.left and cbor_next_label(&at, end, &claims, &label) == 0:
        if cbor_small(&label) != CATR:
            cbor_skip(&at, end, 2)
            continue
        cbor_open_map(&at, end, 2, &parts)
        while parts.left and cbor_next_label(&at, end, &parts, &label) == 0:
            if cbor_small(&label) not in (1, 2):
                cbor_skip(&at, end, 3)
                continue
            cbor_read_head(&at, end, &head)
            if cbor_small(&label) == 1:
                added = head.value
            else:
                ahead, told = head.value, True
        ahead = ahead if told else added // 2
        return exp - <int64_t> ahead if ahead < <uint64_t> exp else 0
    return INT64_MAX


cdef Token make(Verifier verifier, Key key, const Envelope* envelope, const Claims* claims, bytes digest, bytes identity):
    cdef Token token = Token.__new__(Token)
    cdef const uint8_t* begin = envelope.payload
    token.key, token.digest, token.identity = key, digest, identity
    token.payload = PyBytes_FromStringAndSize(<const char*> begin, envelope.payload_size)
    token.generation, token.revocations = verifier.generation, verifier.revocations
    token.deadline = claims.exp + GRACE if claims.present & bit_of(4) else INT64_MAX
    token.due = INT64_MAX
    if key.leased and claims.present & bit_of(CATR) and claims.present & bit_of(4):
        token.due = due_of(begin, begin + envelope.payload_size, claims.exp)
    token.start = claims.nbf - SKEW if claims.present & bit_of(5) else 0
    token.catm = claims.catm - begin if claims.catm != NULL else 0
    token.catu = claims.catu - begin if claims.catu != NULL else 0
    token.catnip = claims.catnip - begin if claims.catnip != NULL else 0
    token.unknown = claims.unknown or envelope.unknown
    if claims.cti != NULL:
        token.handle_size = min(claims.cti_size, <size_t> SESSION)
        memcpy(token.handle, claims.cti, token.handle_size)
    else:
        # The MAC covers all that counts, where a token's characters, or a signature, could be written in another way.
        identity = digest_of(envelope.mac, MAC) if key.algorithm == HS256 else identity
        token.handle_size = SESSION
        memcpy(token.handle, PyBytes_AS_STRING(identity), SESSION)
    return token


@cython.final
cdef class Verifier:
    def __cinit__(self):
        self.keys, self.sessions, self.kids, self.tokens, self.known, self.ends = [], {}, {}, {}, {}, {}

    def __init__(self, keys=(), Py_ssize_t remembered=10_000):
        if remembered < 1:
            raise StreamGateError("internal", "at least one token is remembered")
        self.remembered = remembered
        self.configure(keys)

    def configure(self, keys, kept=()):
        cdef list given = list(keys)
        cdef Key key
        for key in given:
            if key.algorithm == 0:
                raise StreamGateError("internal", "a key that was not made")
        if len({((<Key> key).kid, (<Key> key).algorithm) for key in given}) != len(given):
            raise StreamGateError("config_invalid", "two keys have one kid")
        self.keys = given
        # A key may be another under the same name: but for those that are kept, signatures are looked at anew.
        self.known = {digest: entry for digest, entry in self.known.items() if entry[1] in kept}
        self.generation += 1

    @property
    def revoked(self):
        return len(self.sessions) + len(self.kids) + len(self.tokens)

    def revoke_session(self, bytes session not None, until):
        if not session:
            raise StreamGateError("internal", "a session's handle has at least one byte")
        self.sessions[session[:SESSION]] = max(until, self.sessions.get(session[:SESSION], until))
        self.revocations += 1

    def revoke_kid(self, bytes kid not None, until):
        self.kids[kid] = max(until, self.kids.get(kid, until))
        self.revocations += 1

    def restore_session(self, bytes session not None):
        self.sessions.pop(session[:SESSION], None)
        self.revocations += 1

    def restore_kid(self, bytes kid not None):
        self.kids.pop(kid, None)
        self.revocations += 1

    def revoke_token(self, bytes digest not None, until):
        self.tokens[digest] = max(until, self.tokens.get(digest, until))
        if digest in self.known:
            identity = self.known[digest][0]
            self.tokens[identity] = max(until, self.tokens.get(identity, until))
        self.revocations += 1

    def restore_token(self, bytes digest not None):
        self.tokens.pop(digest, None)
        if digest in self.known:
            self.tokens.pop(self.known[digest][0], None)
        self.revocations += 1

    def remember(self, token, int64_t until):
        cdef bytes digest, identity
        key, _, _, digest, identity = self.covered(token)
        if (<Key> key).leased:
            refuse(SIGNATURE)
        while len(self.known) >= self.remembered and digest not in self.known:
            del self.known[next(iter(self.known))]
        while len(self.ends) >= self.remembered and identity not in self.ends:
            del self.ends[next(iter(self.ends))]
        self.ends.setdefault(identity, until)
        self.known[digest] = identity, ((<Key> key).kid, (<Key> key).algorithm)
        if digest in self.tokens:
            self.revoke_token(digest, self.tokens[digest])

    def forget(self, int64_t now):
        cdef int count = 0
        for table in (self.sessions, self.kids, self.tokens):
            for name in [name for name, until in table.items() if until <= now]:
                del table[name]
                count += 1
        return count

    cdef bint is_revoked(self, Token token) except -1:
        if self.kids and token.key.kid in self.kids:
            return True
        if self.tokens and token.digest is not None and (token.digest in self.tokens or token.identity in self.tokens):
            return True
        return bool(self.sessions) and token.handle[:token.handle_size] in self.sessions

    cdef int stands(self, Token token) except -1:
        if token.generation != self.generation:
            return KEY
        if token.revocations != self.revocations:
            if self.is_revoked(token):
                return REVOKED
            token.revocations = self.revocations
        return ACCEPTED

    cdef int decide(self, Token token, const Asked* asked) except -1:
        cdef int code = self.stands(token)
        return token.decide(asked) if code == ACCEPTED else code

    cdef Key find(self, const Envelope* envelope):
        cdef Key key
        if envelope.kid != NULL:
            for key in self.keys:
                if (<size_t> PyBytes_GET_SIZE(key.kid) == envelope.kid_size and key.algorithm == envelope.algorithm
                        and memcmp(PyBytes_AS_STRING(key.kid), envelope.kid, envelope.kid_size) == 0):
                    return key
        return None

    cdef Key open(self, const uint8_t* token, size_t size, uint8_t* raw, Envelope* envelope, int* code):
        """The key that a token names, and its envelope, in ``raw``; None, and why."""
        cdef Py_ssize_t length
        code[0] = TOO_LONG
        if size > MAX_TOKEN:
            return None
        code[0] = MALFORMED
        length = base64url_decode(token, size, raw)
        if length < 0 or read_envelope(raw, raw + length, envelope) < 0:
            return None
        code[0] = ALGORITHM
        if envelope.algorithm != HS256 if envelope.tag == 17 else envelope.algorithm not in (ES256, PS256):
            return None
        code[0] = KEY
        return self.find(envelope)

    cdef Token verify(self, const uint8_t* token, size_t size, int* code):
        cdef uint8_t raw[MAX_BYTES]
        cdef uint8_t message[MAX_BYTES + COVERED]
        cdef Envelope envelope
        cdef Claims claims
        cdef size_t n
        cdef const uint8_t* at
        cdef const uint8_t* end
        cdef Key key = self.open(token, size, raw, &envelope, code)
        cdef Token found
        cdef bytes digest = None, identity = None
        if key is None:
            return None
        code[0] = SIGNATURE
        n = put_covered(message, &envelope)
        if key.algorithm == HS256 and (envelope.mac_size != MAC or not key.authentic(message, n, envelope.mac)):
            return None
        if not key.leased:          # whose signature, and first sight, somebody must have told of
            digest = digest_of(token, size)
            entry = self.known.get(digest)
            if entry is None or entry[0] not in self.ends:
                return None
            identity = entry[0]
        code[0] = MALFORMED
        at, end = envelope.payload, envelope.payload + envelope.payload_size
        if read_claims(&at, end, 1, &claims) < 0 or at != end:
            return None
        code[0] = MISSING_CLAIM
        if key.required & ~claims.present:
            return None
        code[0] = ISSUER
        if claims.iss != NULL and (claims.iss_size != <size_t> PyBytes_GET_SIZE(key.issuer_text)
                                   or memcmp(claims.iss, PyBytes_AS_STRING(key.issuer_text), claims.iss_size) != 0):
            return None
        code[0] = AUDIENCE
        if claims.aud != NULL and not key.meant(claims.aud, end):
            return None
        code[0] = REVOKED
        found = make(self, key, &envelope, &claims, digest, identity)
        if self.is_revoked(found):
            return None
        if identity is not None:
            found.deadline = min(found.deadline, <int64_t> self.ends[identity])
        code[0] = ACCEPTED
        return found

    def covered(self, token):
        cdef list held = []
        cdef size_t size, n
        cdef const uint8_t* text = borrow(token, &size, held)
        cdef uint8_t raw[MAX_BYTES]
        cdef uint8_t message[MAX_BYTES + COVERED]
        cdef Envelope envelope
        cdef int code = ACCEPTED
        cdef Key key = self.open(text, size, raw, &envelope, &code)
        if key is None:
            refuse(code)
        n = put_covered(message, &envelope)
        if key.algorithm == HS256 and (envelope.mac_size != MAC or not key.authentic(message, n, envelope.mac)):
            refuse(SIGNATURE)
        covered = message[:n]
        return key, covered, envelope.mac[:envelope.mac_size], digest_of(text, size), key.identify(covered)

    def read(self, token):
        cdef list held = []
        cdef size_t size
        cdef const uint8_t* text = borrow(token, &size, held)
        cdef int code = ACCEPTED
        found = self.verify(text, size, &code)
        if found is None:
            refuse(code)
        return found

    def check(self, Token token not None, *, str method not None="GET", str scheme not None="https",
              str host not None="", str path not None, bytes address not None=b"", int64_t now):
        return judge(self, token, method, scheme, host, path, address, now)


# For people: what a token says.

cdef object build(const uint8_t** at, const uint8_t* end):
    """Python's form of an item that cbor_skip found good."""
    cdef const uint8_t* begin = at[0]
    cdef const uint8_t* text
    cdef size_t size
    cdef cbor_head head
    cdef dict made
    cbor_read_head(at, end, &head)
    if head.major == 0:
        return head.value
    if head.major == 1:
        return -1 - <object> head.value
    if head.major == 2 or head.major == 3:
        at[0] = begin
        cbor_read_string(at, end, head.major, &text, &size)
        return text[:size] if head.major == 2 else text[:size].decode("utf-8")
    if head.major == 4:
        return [build(at, end) for _ in range(head.value)]
    if head.major == 5:
        made = {}
        for _ in range(head.value):
            key = build(at, end)
            made[key] = build(at, end)
        return made
    if head.major == 6:
        return head.value, build(at, end)
    if head.info >= 25:
        return cbor_float(&head)
    return {20: False, 21: True, 22: None}.get(head.value, f"simple({head.value})")


def decode(token):
    cdef list held = []
    cdef size_t size
    cdef const uint8_t* text = borrow(token, &size, held)
    cdef uint8_t raw[MAX_BYTES]
    cdef Envelope envelope
    cdef Py_ssize_t length
    cdef const uint8_t* at
    cdef const uint8_t* end
    if size > MAX_TOKEN:
        refuse(TOO_LONG)
    length = base64url_decode(text, size, raw)
    if length < 0 or read_envelope(raw, raw + length, &envelope) < 0:
        refuse(MALFORMED)
    at, end = envelope.payload, envelope.payload + envelope.payload_size
    if not cbor_next_is(at, end, 5) or cbor_skip(&at, end, 1) < 0 or at != end:
        refuse(MALFORMED)
    at = envelope.payload
    claims = build(&at, end)
    at = envelope.protected
    protected = build(&at, at + envelope.protected_size) if envelope.protected_size else {}
    at = envelope.unprotected
    return envelope.tag, protected, build(&at, envelope.payload), claims
