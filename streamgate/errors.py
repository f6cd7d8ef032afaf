"""The one error type of StreamGate, with its axes.

Every failure that a caller may meet is a :class:`StreamGateError`.
Its ``code`` is unique, stable and meant for programs; the message is meant for people.
All codes are declared in :data:`CODES`, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["viewer", "creator", "origin", "chain", "internal"]


@dataclass(frozen=True, slots=True)
class Code:
    """What is always true of one error code: HTTP status, who caused it, and whether a retry may help."""

    status: int
    source: Source
    retryable: bool
    meaning: str


CODES: dict[str, Code] = {
    # Sources that cannot be read: the creator's file is at fault.
    "source_not_found": Code(404, "creator", False, "there is no such file"),
    "source_unreadable": Code(502, "origin", True, "the file cannot be read from its store"),
    "source_changed": Code(503, "origin", True, "the file was replaced while it was being read"),
    "origin_denied": Code(502, "origin", False, "the store of the sources does not let us"),
    "origin_untrusted": Code(502, "origin", False, "nobody we trust vouches for the store of the sources"),
    "origin_unavailable": Code(503, "origin", True, "the store of the sources does not answer as it should"),
    "listing_too_long": Code(422, "creator", False, "there are more objects than the limit allows"),
    "source_truncated": Code(422, "creator", False, "the file ends before its boxes or samples do"),
    "source_malformed": Code(422, "creator", False, "the file breaks the rules of its container"),
    "source_too_complex": Code(
        422, "creator", False, "the file claims more boxes, samples or bytes than the limits allow"
    ),
    "source_encrypted": Code(422, "creator", False, "the file's samples are encrypted"),
    "source_empty": Code(422, "creator", False, "the file has no track that can be played"),
    "source_unsupported": Code(422, "creator", False, "the file's container is not one that can be read"),
    "edit_unsupported": Code(422, "creator", False, "an edit list cuts, repeats or changes speed in the middle"),
    # Findings: why one track or rendition is not offered, while the rest of the asset is.
    "codec_unsupported": Code(422, "creator", False, "the codec has no place in HLS or DASH"),
    "profile_unplayable": Code(422, "creator", False, "no browser plays this codec profile"),
    "gop_too_long": Code(422, "creator", False, "keyframes are further apart than the longest segment allowed"),
    "keyframes_unaligned": Code(422, "creator", False, "the rung shares too few closed keyframes with the others"),
    "sample_entry_change": Code(422, "creator", False, "the codec configuration changes in the middle of a track"),
    "track_empty": Code(422, "creator", False, "the track has no samples"),
    "ts_unavailable": Code(404, "creator", False, "this rendition cannot be carried in MPEG-TS"),
    "subtitle_malformed": Code(422, "creator", False, "the subtitle file breaks the rules of its format"),
    # Assets.
    "asset_not_found": Code(404, "viewer", False, "there is no such asset"),
    "asset_id_collision": Code(409, "creator", False, "two files would get the same asset id"),
    "asset_description": Code(422, "creator", False, "asset.toml is wrong"),
    "asset_preparing": Code(503, "internal", True, "the asset is being prepared for streaming"),
    "remux_failed": Code(422, "creator", False, "the container could not be converted"),
    # Requests.
    "path_malformed": Code(400, "viewer", False, "the path is not in canonical form"),
    "not_found": Code(404, "viewer", False, "there is nothing at this path"),
    "rendition_gone": Code(410, "viewer", False, "this rendition's name is from an earlier version of the asset"),
    "segment_not_found": Code(404, "viewer", False, "the rendition has no such segment"),
    "method_not_allowed": Code(405, "viewer", False, "the method is not allowed here"),
    "range_not_satisfiable": Code(416, "viewer", False, "the range lies beyond the end"),
    "request_malformed": Code(400, "viewer", False, "the request cannot be understood"),
    "precondition_failed": Code(412, "viewer", False, "a condition of the request is not met"),
    "expectation_failed": Code(417, "viewer", False, "the expectation cannot be met"),
    "head_too_large": Code(431, "viewer", False, "the request's head is longer than allowed"),
    "body_too_large": Code(413, "viewer", False, "the request's body is longer than allowed"),
    "head_timeout": Code(408, "viewer", True, "the request's head did not arrive in time"),
    "rate_limited": Code(
        429, "viewer", True, "more requests came from this address, or with this token, than are allowed"
    ),
    "overloaded": Code(503, "internal", True, "too much work is under way"),
    "cache_failed": Code(503, "internal", True, "the disk tier does not do what is asked of it"),
    "fill_lost": Code(503, "internal", True, "what was being made has stopped to grow"),
    "stopping": Code(503, "internal", True, "the server is stopping"),
    "not_ready": Code(503, "internal", True, "the server is not ready"),
    "internal": Code(500, "internal", False, "something went wrong inside"),
    # Playback tokens.
    "token_required": Code(401, "viewer", False, "this needs a playback token"),
    "token_ambiguous": Code(400, "viewer", False, "two different playback tokens were sent"),
    "token_too_long": Code(401, "viewer", False, "the token is longer than 1024 characters"),
    "token_malformed": Code(401, "viewer", False, "the token is not in the form that CTA-5007 and CWT give it"),
    "token_algorithm": Code(401, "viewer", False, "the token's algorithm is not accepted"),
    "token_key": Code(401, "viewer", False, "the token's key is not known here"),
    "token_signature": Code(401, "viewer", False, "the token was not made with its key"),
    "token_missing_claim": Code(401, "viewer", False, "the token lacks a claim that is required"),
    "token_issuer": Code(401, "viewer", False, "the token is from another issuer than its key"),
    "token_audience": Code(401, "viewer", False, "the token is for another site"),
    "token_revoked": Code(401, "viewer", False, "the token's session, or its key, was revoked"),
    "token_expired": Code(401, "viewer", False, "the token has expired"),
    "token_not_yet_valid": Code(401, "viewer", False, "the token is not valid yet"),
    "token_method": Code(403, "viewer", False, "the token is not for this method"),
    "token_path": Code(403, "viewer", False, "the token is not for this address"),
    "token_network": Code(403, "viewer", False, "the token is not for this network"),
    "token_header": Code(403, "viewer", False, "the token is not for requests with these header fields"),
    "token_condition": Code(403, "viewer", False, "a condition of the token is not met"),
    "token_replayed": Code(401, "viewer", False, "the token counts for one request, which was made"),
    "token_unsupported": Code(403, "viewer", False, "the token holds a restriction that cannot be evaluated here"),
    # Sessions, and the leases that they are served by.
    "session_unknown": Code(401, "viewer", False, "there is no such session any more"),
    "session_ended": Code(401, "viewer", False, "the session has ended"),
    "session_asset": Code(401, "viewer", False, "the session is for another asset"),
    "session_network": Code(401, "viewer", False, "the session is bound to another network"),
    "binding_unavailable": Code(
        503, "internal", False, "sessions are bound to the viewer's network here, and that cannot be told"
    ),
    "session_shared": Code(401, "viewer", False, "the session is used from too many networks at once"),
    "too_many_streams": Code(409, "viewer", True, "as many streams are playing as are allowed at once"),
    "lease_unavailable": Code(503, "internal", True, "it cannot be found out in time whether the session may go on"),
    "auth_unavailable": Code(503, "internal", True, "the auth role does not answer"),
    # Playback and sign-in.
    "playback_denied": Code(403, "viewer", False, "the asset's policy does not let this viewer in"),
    "embed_denied": Code(403, "viewer", False, "pages of this origin may not play the asset"),
    "password_wrong": Code(403, "viewer", True, "the password is wrong"),
    "sign_in_required": Code(401, "viewer", False, "this needs an account that is signed in"),
    "sign_in_failed": Code(401, "viewer", True, "there is no such account, or the password is wrong"),
    "refresh_invalid": Code(401, "viewer", False, "the refresh token does not count any more"),
    # The operator's and the command line's.
    "revocations_full": Code(503, "internal", False, "as many revocations are in force as are allowed"),
    "config_invalid": Code(500, "internal", False, "a setting is wrong"),
    "store_unavailable": Code(503, "internal", True, "the machine's store cannot be read or written"),
    "revocation_ended": Code(400, "internal", False, "what was to be revoked has ended by itself"),
    "worker_failed": Code(500, "internal", True, "a process that serves could not be started"),
    "not_acknowledged": Code(503, "internal", True, "not every process has answered in time"),
    "admin_token": Code(401, "internal", False, "this is not the operators' token"),
    "admin_unreachable": Code(503, "internal", True, "no server answers at the operator's socket"),
    "files_too_few": Code(500, "internal", False, "a process may not have enough files open"),
    "listen_failed": Code(500, "internal", False, "the address cannot be listened on"),
    "output_exists": Code(409, "creator", False, "the output folder is not empty"),
    "output_failed": Code(507, "internal", True, "the output cannot be written"),
}


class StreamGateError(Exception):
    """A failure with a code from :data:`CODES`; ``detail`` says what happened this time, without secrets."""

    def __init__(self, code: str, detail: str = "") -> None:
        self.code = code
        self.detail = detail or CODES[code].meaning
        super().__init__(f"{code}: {self.detail}")

    @property
    def status(self) -> int:
        """HTTP status to answer with (RFC 9110 section 15)."""
        return CODES[self.code].status

    @property
    def source(self) -> Source:
        """Whose doing it is."""
        return CODES[self.code].source

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return CODES[self.code].retryable

    def __reduce__(self) -> tuple[type[StreamGateError], tuple[str, str]]:
        return (type(self), (self.code, self.detail))


@dataclass(frozen=True, slots=True)
class Finding:
    """Why something of an asset is not offered, or is offered with a caveat: a code, the subject, and a sentence."""

    code: str
    subject: str
    detail: str
