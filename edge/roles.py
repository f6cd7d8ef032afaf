"""The data plane's roles."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from edge.keyring import Keyring
from edge.library import BucketLibrary, FolderLibrary
from edge.node import Node, make_node
from edge.remuxes import Remuxes
from edge.tiers.indexes import DiskIndexes, SharedIndexes
from streamgate.access.keys import AnyKey
from streamgate.core.health import Health
from streamgate.core.lifecycle import Role
from streamgate.core.logging import get_logger
from streamgate.core.settings import Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.native.cat import Verifier
from streamgate.storage import keys

_log = get_logger("edge.roles")


def streaming(
    settings: Settings,
    root: str,
    telemetry: Telemetry,
    health: Health,
    limits: int | None = None,
    *,
    replacing: bool = False,
    auth: str = "",
) -> tuple[Role, Node]:
    """The role that cuts and serves media of ``root``, a path or s3://bucket/prefix, and the node its requests run on; the
    rest as for ``make_node``.
    """
    remuxes = Remuxes(settings.edge.remux_jobs, telemetry)
    bucket = BucketLibrary(root, settings, telemetry) if "://" in root else None
    library = bucket or FolderLibrary(Path(root), settings.media, settings.server.data_folder, remuxes)
    known = _keys(settings)
    node = make_node(
        settings,
        library,
        telemetry,
        health,
        Verifier([key.verifying() for key in known], settings.foreign.remembered),
        limits,
        replacing=replacing,
        auth=auth,
        remote=bucket is not None,
    )
    folder = keys.Folder(*keys.place(settings))

    def signing(keys_now: Sequence[AnyKey]) -> None:
        signer = None
        with contextlib.suppress(StreamGateError):  # where it is not told which of them signs
            signer = keys.chosen(settings, keys_now)
        node.renewing.configure(keys.ours_of(keys_now), signer)

    signing(known)
    keyring = Keyring(
        folder, node.gate.verifier, settings.tokens.revalidate, node.gate.foreign, node.leasing.keys_changed, signing
    )
    if node.gate.foreign is not None:
        node.gate.foreign.configure(known)
    library.indexes = DiskIndexes(node.tiers.disk)

    if bucket is not None:
        health.note(bucket.problem)  # what was listed once counts on

    async def start() -> None:
        if settings.redis.url:
            sharing = await node.tiers.share(settings.redis)
            library.indexes = SharedIndexes(DiskIndexes(node.tiers.disk), sharing, settings.redis)
            health.note(sharing.tier.problem)
            if node.gate.foreign is not None:
                node.gate.foreign.site = sharing.tier.writes
        if bucket is not None:
            await bucket.start(node.assets.origin)
        # A store that is away now will be back; a folder that is not there is a mistake.
        with contextlib.suppress(StreamGateError) if bucket is not None else contextlib.nullcontext():
            await node.assets.refs()
        await node.gate.start()
        keyring.start()
        node.atlas.start()
        await node.leasing.start()

    async def stop() -> None:
        await keyring.stop()
        await node.atlas.stop()
        await node.leasing.stop()
        await node.once.close()
        remuxes.close()
        if bucket is not None:
            await bucket.stop()
        node.close()

    def ready() -> str | None:
        return bucket.missing() if bucket is not None else None

    return Role("streaming", start=start, ready=ready, stop=stop), node


def _keys(settings: Settings) -> list[AnyKey]:
    """Those of the settings; where none are configured and none can be kept, no token is believed."""
    try:
        return keys.configured(settings)
    except StreamGateError as error:
        if settings.tokens.keys or not isinstance(error.__cause__, OSError):
            raise
        _log.warning("no key of playback tokens", reason=error.detail)
        return []
