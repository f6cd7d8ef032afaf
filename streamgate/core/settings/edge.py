"""Settings of what the edge keeps, makes and gives away."""

from __future__ import annotations

from streamgate.core.settings.section import Section, setting


class EdgeSettings(Section):
    """What the edge keeps, how much it does at once, and how its answers may be cached and read."""

    cors_origins: tuple[str, ...] = setting(
        ("*",),
        'Origins of pages that may read answers. "*": any, without credentials. A listed origin (https://player.example) may send them.',
    )
    cors_max_age: int = setting(
        7200, "Time a browser may remember a preflight's answer.", unit="seconds", ge=0, le=86400
    )
    manifest_max_age: int = setting(
        2, "Time a multivariant playlist or MPD may be used before it is asked for again.", unit="seconds", ge=0, le=60
    )
    stale_while_revalidate: int = setting(
        0,
        "Time in which a manifest that must be asked for again may still be used meanwhile (RFC 5861), by caches, and here while its asset is looked at.",
        unit="seconds",
        ge=0,
        le=86400,
    )
    stale_if_error: int = setting(
        86400,
        "Time in which a manifest may still be used where its asset cannot be looked at (RFC 5861), by caches and here.",
        unit="seconds",
        ge=0,
        le=2_592_000,
    )
    cache_tags: bool = setting(
        False,
        "Send Cache-Tag: the asset, the rendition, the kind, and the tags in asset.toml, for purges by caches in front.",
    )
    revalidate: float = setting(
        1.0, "An open asset's files are looked at for changes at most this often.", unit="seconds", ge=0, le=60
    )
    failure_ttl: float = setting(
        2.0,
        "Time a failure to open an asset is remembered, so that a broken file is not read over and over.",
        unit="seconds",
        ge=0,
        le=300,
    )
    cmsd: str = setting(
        "",
        "This server's name in the fields that tell players of an object and its delivery (CMSD). Empty: none are sent.",
    )
    require_token: bool = setting(
        False, "Every asset needs a playback token, whatever its asset.toml says; else those whose gated is true."
    )
    list_gated: bool = setting(False, "Whether /assets.json tells strangers which assets need a token.")
    authorize_timeout: float = setting(
        5.0,
        "Time for a check that may wait, such as that of a claim which is not evaluated at once; then the answer is 503.",
        unit="seconds",
        ge=0.1,
        le=60,
    )
    max_authorizing: int = setting(
        1024, "Such checks at once; beyond them the answer is 503.", unit="checks", ge=1, le=1_000_000
    )
    retry_after: int = setting(2, "Retry-After of answers with status 503.", unit="seconds", ge=1, le=3600)
    open_assets: int = setting(
        256,
        "Assets kept open, with their indexes in memory (below 3 MiB per hour of video).",
        unit="assets",
        ge=1,
        le=100_000,
    )
    cache_bytes: int = setting(
        256 * 1024 * 1024,
        "Memory of the node, all its workers together, for what it serves from memory.",
        unit="bytes",
        ge=0,
        le=2**40,
    )
    memory_object: int = setting(
        128 * 1024,
        "Largest body kept in memory; larger ones are sent from the disk tier's files.",
        unit="bytes",
        ge=0,
        le=2**30,
    )
    open_objects: int = setting(
        8192, "Files of the disk tier that a worker keeps open.", unit="files", ge=16, le=1_000_000
    )
    disk_bytes: int = setting(
        4 * 2**30,
        "Size of the disk tier, which all workers share, in the folder server.data. 0: none.",
        unit="bytes",
        ge=0,
        le=2**50,
    )
    disk_retry: float = setting(
        30.0, "Time without writes to the disk tier after one has failed.", unit="seconds", ge=0, le=3600
    )
    disk_patience: float = setting(
        4.0,
        "Longest time of one look into the disk tier, or of one write; then it is left alone for disk_retry.",
        unit="seconds",
        ge=0.05,
        le=600,
    )
    disk_direct: bool = setting(
        True,
        "Large objects are written past the page cache (O_DIRECT), and get there when they are first asked for. Off: for"
        " disks that are slower than what they store arrives in bursts.",
    )
    scrub_rate: int = setting(
        4 * 2**20,
        "Speed at which objects on the disk are read again to find damaged ones. 0: never.",
        unit="bytes a second",
        ge=0,
        le=2**40,
    )
    fill_timeout: float = setting(
        30.0,
        "Time in which an object that is being made must grow; then whoever waits for it is told.",
        unit="seconds",
        ge=0.1,
        le=3600,
    )
    leader_silence: float = setting(
        3.0,
        "A process that makes what others wait for says each second that it lives; after so long without a word they go on"
        " without it.",
        unit="seconds",
        ge=2,
        le=600,
    )
    max_buffered_segment: int = setting(
        16 * 1024 * 1024,
        "Largest segment built whole before it is sent; larger ones are sent in blocks.",
        unit="bytes",
        ge=65536,
        le=2**30,
    )
    block: int = setting(
        256 * 1024,
        "Size of the blocks in which larger segments are read and sent, and all of them where memory is short.",
        unit="bytes",
        ge=65536,
        le=2**26,
    )
    max_ts_segment: int = setting(
        64 * 1024 * 1024,
        "Largest MPEG-TS segment, which is always built whole; larger ones are refused.",
        unit="bytes",
        ge=65536,
        le=2**30,
    )
    buffered_bytes: int = setting(
        512 * 1024 * 1024,
        "Memory for segments on their way to clients. Beyond half of it all are sent in blocks, beyond it the answer is 503.",
        unit="bytes",
        ge=2**20,
        le=2**40,
    )
    threads: int = setting(4, "Threads that cut segments, write manifests and compress.", unit="threads", ge=1, le=256)
    open_threads: int = setting(
        2, "Threads that open assets, apart from the others: opening may be slow.", unit="threads", ge=1, le=64
    )
    max_queued: int = setting(
        1024,
        "Tasks that may wait for those threads; beyond it requests are answered 503.",
        unit="tasks",
        ge=1,
        le=1_000_000,
    )
    remux_jobs: int = setting(
        1, "Containers converted at once, each in a process of its own.", unit="processes", ge=1, le=64
    )
    compress_min: int = setting(
        512, "Smaller texts are not compressed: they fit one packet anyway.", unit="bytes", ge=0, le=2**20
    )
    compress_inline: int = setting(
        8192, "Texts up to this size are compressed at once, larger ones in a thread.", unit="bytes", ge=0, le=2**20
    )


class MediaSettings(Section):
    """How presentations are cut (changing that changes the renditions' names), and how large an index may be."""

    target: float = setting(
        4.0,
        "Segments begin at the first common keyframe at or after each multiple of this.",
        unit="seconds",
        ge=0.5,
        le=60,
    )
    max_segment: float = setting(
        12.0, "A rendition whose keyframes are further apart is not offered.", unit="seconds", ge=1, le=600
    )
    trick_interval: float = setting(
        1.0, "Keyframes for trick play are at least this far apart.", unit="seconds", ge=0.1, le=60
    )
    max_index_bytes: int = setting(
        256 * 1024 * 1024,
        "Bytes of a source's boxes that are read and kept for its index; bounds what a hostile file can take.",
        unit="bytes",
        ge=65536,
        le=2**32,
    )
    max_samples: int = setting(
        50_000_000,
        "Samples of a source, all tracks together: more than a week of video with sound.",
        unit="samples",
        ge=1000,
        le=2_000_000_000,
    )
    max_boxes: int = setting(
        10_000_000,
        "Boxes of a source: recordings with a fragment for each frame have several million in some hours.",
        unit="boxes",
        ge=1000,
        le=1_000_000_000,
    )


class TokenSettings(Section):
    """Playback tokens: whose are believed, and how they are made."""

    keys: str = setting(
        "",
        "Folder of key files (NAME.toml), which only their owner may read. Empty: keys in the folder server.data, where one is made.",
    )
    revalidate: float = setting(
        0.5,
        "Time between two looks at the folder of key files: a key that is removed, added or changed there counts by then. 0: only at a start or reload.",
        unit="seconds",
        ge=0,
        le=3600,
    )
    issuer: str = setting("streamgate", "Issuer (iss) of the tokens made here, and of keys whose file names no other.")
    site: str = setting(
        "local", "This site's name: the audience (aud) of its tokens, and of keys whose file names no other."
    )
    require: tuple[str, ...] = setting(
        ("iss", "exp", "cti", "aud"), "Claims that a token must have, where its key's file does not say otherwise."
    )
    root: str = setting(
        "",
        "File of the root that the site's keys are derived from; only the auth role reads it. Empty: keys/root in the folder server.data, made there.",
    )
    signer: str = setting(
        "",
        "The kid of the key that tokens are made with. Empty: the site's generation that signs, else the last of ours by file name.",
    )
    lifetime: int = setting(
        14_400,
        "Time from the making of a token to its end, which is that of the session: a token in the path is not renewed.",
        unit="seconds",
        ge=60,
        le=2_592_000,
    )
    short_life: int = setting(
        300,
        "Life of a token in a header or a cookie, which is renewed until its session ends.",
        unit="seconds",
        ge=1,
        le=86_400,
    )
    without_session: bool = setting(
        False,
        "Take tokens of ours whose session the auth role does not know (`token mint --offline`): nothing ends them.",
    )
