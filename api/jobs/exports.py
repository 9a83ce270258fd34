"""Exports: when one is due, which are withdrawn, which are kept.

What stands in the files is `pki/publication/export.py`'s; how a folder comes to be whole or not at all,
`pki/publication/export_folder.py`'s; how they are handed out, `api/rest/exports.py`'s.
"""

from datetime import UTC, timedelta

from api.jobs.list_signer import list_signer
from api.wiring import Container
from directory.base.db import transaction
from directory.base.locks import try_lock
from directory.feed import outside_cursor
from directory.sync.runs.run_log import last_applied_at
from pki.publication.export import FORMAT, write_export
from pki.publication.export_folder import KEPT, Export, all_exports, forget, is_withdrawn, seal, whole_or_not

# Four registers of one night make one export.
_QUIET = timedelta(minutes=5)
_DAILY = timedelta(hours=24)


def export_if_due(container: Container) -> str:
    """The job: an export a day, one after registers were applied, and one when none leads into the feed."""
    done = replace_withdrawn(container)
    if _is_due(container) and (export := write(container)):
        done = ", ".join(filter(None, (done, f"wrote {export.stamp}")))
    return done


def replace_withdrawn(container: Container) -> str:
    """The job: another export as soon as one is withdrawn, since until then there is none to begin from.

    The files withdrawn go afterwards, and also where no other can be written: then `export_if_due` tries
    again in its time.
    """
    with transaction(container.engine, read_only=True) as connection:
        if not any(is_withdrawn(connection, export) for export in all_exports(container.settings.exports)):
            return ""
    try:
        export = write(container)
    except BaseException:
        withdraw(container)
        raise
    if export is None:
        # Another process writes one, or did this very second: the next run sees what is left to do.
        return ""
    return ", ".join([f"wrote {export.stamp}", *(f"withdrew {stamp}" for stamp in withdraw(container))])


def withdraw(container: Container) -> list[str]:
    """Remove the exports that hold a mailbox since put on the red list; their stamps.

    They are not handed out from the moment it was put there.
    """
    with try_lock(container.engine, "export") as alone:
        if not alone:
            return []
        with transaction(container.engine, read_only=True) as connection:
            exports = all_exports(container.settings.exports)
            doomed = [export for export in exports if is_withdrawn(connection, export)]
        for export in doomed:
            forget(export.folder)
        return [export.stamp for export in doomed]


def export_now(container: Container) -> str:
    """The job as a person starts it: an export of what the record holds now, however quiet it is."""
    export = write(container)
    return "" if export is None else f"wrote {export.stamp}"


def write(container: Container) -> Export | None:
    """Write one now, signed, and forget those beyond the last seven.

    None while another process writes one, or when one of this very second exists. Refuses `no-list-signer`
    where there is no CA. What a crash leaves half written nobody sees, and the next one removes.
    """
    with try_lock(container.engine, "export") as alone:
        if not alone:
            return None
        signer = list_signer(container)
        now = container.clock().replace(microsecond=0)
        folder = container.settings.exports
        stamp = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        if (folder / stamp).exists():
            return None
        with whole_or_not(folder, stamp) as made:
            with transaction(container.engine, read_only=True) as connection:
                manifest = write_export(connection, made, now)
            seal(made, manifest, signer)
        exports = all_exports(folder)
        for old in exports[KEPT:]:
            forget(old.folder)
        return exports[0]


def _is_due(container: Container) -> bool:
    now = container.clock()
    newest = next(iter(all_exports(container.settings.exports)), None)
    with transaction(container.engine, read_only=True) as connection:
        applied = last_applied_at(connection)
        # After a restore, none of those that are kept leads into the feed.
        serves = newest is not None and outside_cursor.leads_on(connection, newest.manifest["cursor"])
    if applied is None:
        return False
    if newest is None or not serves or newest.manifest["format"] < FORMAT or now - newest.made_at >= _DAILY:
        return True
    return bool(applied > newest.made_at and now - applied >= _QUIET)
