"""Content-addressed artifacts: what every stage leaves behind and what every later stage reads.

An artifact is a directory ``<store>/<kind>/<key>/`` whose ``artifact.json`` is written last. Without that file, or when
a listed file is missing or has another size, there is no artifact: a killed or truncated writer leaves nothing that is
read. Local drafts are written beside their place and renamed; on object stores, which cannot rename, files go to their
place and ``artifact.json`` follows. Builds are deterministic, so two writers of one key write the same bytes.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from boom_ray import places
from boom_ray.disk import (
    MANIFEST,
    cache_dir,
    copy_once,
    file_sizes,
    is_trouble_below,
    new_draft,
    rename_into_place,
)
from boom_ray.errors import StoreError
from boom_ray.hashing import digest

ARTIFACT = "artifact:"
KEY = re.compile(r"[0-9a-f]{32}")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Artifact:
    """A finished artifact.

    Attributes:
        kind: stage that made it (``corpus``, ``bag``, ``member``, ``merge``, ``scores``…).
        key: hash of what determines its content.
        uri: where it is; a local path for local stores.
        spec: the fields that determine it.
        inputs: name to fingerprint of what it was made from.
        figures: numbers and tables the stage measured; JSON values.
        fingerprint: hash of its content, what later stages take as input; equals ``key`` unless the stage set it.
        files: relative path to size in bytes.
    """

    kind: str
    key: str
    uri: str
    spec: dict[str, Any]
    inputs: dict[str, Any]
    figures: dict[str, Any]
    fingerprint: str
    files: dict[str, int]

    def place(self, inner: str) -> str:
        """Names a folder of the artifact for any machine that sees the store, see `Store.resolve`."""
        return f"{ARTIFACT}{self.kind}/{self.key}/{inner}"

    def local(self) -> Path:
        """A local directory with the artifact's files; remote ones are copied once per machine, then reused.

        Raises:
            StoreError: the files cannot be fetched or the disk is full.
        """
        fs, path = fsspec.url_to_fs(self.uri)
        if isinstance(fs, LocalFileSystem):
            return Path(path)
        target = cache_dir() / self.kind / self.key
        try:
            copy_once(target, self.files, lambda name, to: fs.get_file(f"{path}/{name}", to))
        except OSError as error:
            raise StoreError(f"{self.uri} cannot be copied to {target}: {error}.") from error
        return target


@dataclass
class Draft:
    """An artifact being written: put files under `path`, facts into `figures`, optionally set `fingerprint`.

    Files that other machines upload to the artifact's place themselves (`Store.upload`) are named in `placed`, with
    their sizes when the build ends; when it fails, they are removed. It may name them before they are there.
    """

    path: Path
    figures: dict[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None
    placed: dict[str, int] = field(default_factory=dict)


class Store:
    """Artifacts under one root: a local directory or any fsspec URL (``s3://``, ``gs://``…).

    Several machines need a root they all see: a network file system or an object store.

    Args:
        root: path or URL.
        scratch: local directory for drafts of remote stores (default: the system's temporary directory).
    """

    def __init__(self, root: str | Path, scratch: str | Path | None = None) -> None:
        """Open the store; nothing is created until the first artifact.

        Raises:
            StoreError: the URL's protocol is unknown, or its driver is not installed.
        """
        try:
            self.fs, path = fsspec.url_to_fs(str(root))
        except (ImportError, ValueError) as error:
            raise StoreError(f"The store {root} cannot be opened: {error}.") from error
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self.root = str(Path(path).absolute()) if self.is_local else str(root).rstrip("/")
        self._path = self.root if self.is_local else path.rstrip("/")
        self.scratch = Path(scratch or tempfile.gettempdir())

    def __reduce__(self) -> tuple[type[Store], tuple[str, Path]]:
        """Stores travel to Ray workers as their root."""
        return (Store, (self.root, self.scratch))

    def location(self, kind: str, key: str) -> str:
        """Path or URL of an artifact, finished or not."""
        return f"{self.root}/{kind}/{key}"

    def folder(self, name: str) -> str:
        """A folder below the root as `fs` names it, for what is no artifact."""
        return f"{self._path}/{name}"

    def _place(self, kind: str, key: str) -> str:
        return f"{self._path}/{kind}/{key}"  # as the file system names it, without protocol

    def resolve(self, place: str) -> Path:
        """A folder on this machine: a path as it is, or the local copy of what `Artifact.place` names.

        Raises:
            StoreError: there is no such artifact.
        """
        if not place.startswith(ARTIFACT):
            return Path(place)
        kind, key, inner = place.removeprefix(ARTIFACT).split("/", 2)
        found = self.get(kind, key)
        if found is None:
            raise StoreError(f"Artifact {kind}/{key} is missing from {self.root}; run the job again to rebuild it.")
        return found.local() / inner

    def finished(self, kind: str = "*") -> list[tuple[str, str]]:
        """Kind and key of every finished artifact of a kind, or of all kinds; sorted.

        Raises:
            StoreError: the store cannot be read.
        """
        try:
            found = self.fs.glob(f"{self._path}/{kind}/*/{MANIFEST}")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"The store {self.root} cannot be read: {error}. Check its path.") from error
        pairs = [tuple(str(path).rsplit("/", 3)[1:3]) for path in found]
        return sorted((name, key) for name, key in pairs if KEY.fullmatch(key))

    def local_folder(self, place: str) -> Path | None:
        """What `resolve` would give, if that is on this machine already and nothing has to be copied."""
        if not place.startswith(ARTIFACT):
            return Path(place) if Path(place).is_dir() else None
        kind, key, inner = place.removeprefix(ARTIFACT).split("/", 2)
        folder = (Path(self._path) if self.is_local else cache_dir()) / kind / key
        return folder / inner if (folder / MANIFEST).exists() else None

    def check_writable(self) -> None:
        """Write and remove a small file, so that a read-only or full store is found before hours of work.

        Raises:
            StoreError: the root cannot be created or written.
        """
        try:
            places.try_writing(self.fs, self._path)
        except Exception as error:  # drivers of object stores raise classes of their own
            raise StoreError(
                f"The store {self.root} cannot be written: {error}. Free some space, fix its permissions, or set "
                f"store=PATH to another place."
            ) from error

    def get(self, kind: str, key: str) -> Artifact | None:
        """The finished artifact, or None; one whose files do not match its manifest is set aside and counts as none."""
        place = self._place(kind, key)
        try:
            artifact = self._parse(kind, key, self.fs.cat_file(f"{place}/{MANIFEST}"))
            fault = places.first_fault(self.fs, place, artifact.files)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            fault = f"{MANIFEST} is damaged ({type(error).__name__}: {error})"
        except OSError as error:
            raise StoreError(
                f"The store {self.root} cannot be read: {error}. Check its path and permissions."
            ) from error
        if fault is None:
            return artifact
        log.warning("Artifact %s/%s is damaged and will be built again: %s.", kind, key, fault)
        places.set_aside(self.fs, place)
        return None

    def _parse(self, kind: str, key: str, text: bytes) -> Artifact:
        manifest = json.loads(text)
        return Artifact(
            kind=kind,
            key=key,
            uri=self.location(kind, key),
            spec=manifest["spec"],
            inputs=manifest["inputs"],
            figures=manifest["figures"],
            fingerprint=manifest["fingerprint"],
            files={str(name): int(size) for name, size in manifest["files"].items()},
        )

    def materialize(
        self, kind: str, spec: dict[str, Any], inputs: dict[str, Any], build: Callable[[Draft], None], version: int = 1
    ) -> Artifact:
        """Return the artifact of (kind, spec, inputs), building it only when it does not exist.

        Args:
            kind: name of the stage.
            spec: exactly the fields that determine the content, as JSON.
            inputs: fingerprints of the input artifacts or files.
            build: writes the files below ``draft.path``.
            version: format version of the stage's code; raise it when the same spec gives another content.

        Raises:
            StoreError: no space or no permission.
        """
        key = artifact_key(kind, spec, inputs, version)
        found = self.get(kind, key)
        if found is not None:
            return found
        draft = self.draft(kind, key)
        try:
            try:
                build(draft)
            except OSError as error:
                if not is_trouble_below(error, [draft.path, *([Path(self._path)] if self.is_local else [])]):
                    raise  # a file of the user's is missing or unreadable: no problem of the store
                raise self._not_written(kind, key, error) from error
            try:
                return self.commit(draft, kind, key, spec, inputs)
            except OSError as error:
                raise self._not_written(kind, key, error) from error
        except BaseException:
            if draft.placed:
                places.take_back(self.fs, self._place(kind, key), draft.placed)
            raise
        finally:
            shutil.rmtree(draft.path, ignore_errors=True)

    def _not_written(self, kind: str, key: str, error: OSError) -> StoreError:
        return StoreError(
            f"Writing {kind} {key} under {self.root} failed: {getattr(error, 'cause', error)}. What was finished "
            f"before is kept; free space or fix permissions and run the same command again."
        )

    def draft(self, kind: str, key: str) -> Draft:
        """An empty local directory to write into, beside the artifact's place when the store is local.

        Drafts of the same kind whose writers were killed are removed, see `boom_ray.disk.new_draft`.

        Raises:
            StoreError: no space or no permission.
        """
        parent = Path(self._path) / kind if self.is_local else self.scratch
        try:
            return Draft(new_draft(parent, label=key[:12]))
        except OSError as error:
            raise StoreError(
                f"The store {self.root} cannot be written: {error}. Free some space or fix its permissions."
            ) from error

    def commit(self, draft: Draft, kind: str, key: str, spec: dict[str, Any], inputs: dict[str, Any]) -> Artifact:
        """Make the draft the artifact: list its files, write the manifest last, move it into place."""
        files = file_sizes(draft.path)
        manifest = {
            "kind": kind,
            "key": key,
            "spec": spec,
            "inputs": inputs,
            "figures": draft.figures,
            "fingerprint": draft.fingerprint or key,
            "files": {**draft.placed, **files},
        }
        (draft.path / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
        place = self._place(kind, key)
        if self.is_local:
            draft.path.chmod(0o755)
            rename_into_place(draft.path, Path(place))
        else:
            draft.placed.update(files)
            for name in [*files, MANIFEST]:
                places.put(self.fs, draft.path / name, place, name)
        artifact = self.get(kind, key)
        if artifact is None:
            raise StoreError(f"Artifact {kind}/{key} was written but cannot be read back from {self.root}.")
        return artifact

    def upload(self, path: Path, kind: str, key: str, name: str) -> None:
        """Put one file of an unfinished artifact at its place in a remote store; it counts once it is committed."""
        places.put(self.fs, path, self._place(kind, key), name)

    def uploaded_size(self, kind: str, key: str, name: str) -> int:
        """Bytes of a file that `upload` has put there."""
        return int(self.fs.size(f"{self._place(kind, key)}/{name}"))


def artifact_key(kind: str, spec: dict[str, Any], inputs: dict[str, Any], version: int = 1) -> str:
    """Key of an artifact: 32 hexadecimal digits of its kind, format version, spec and inputs."""
    return digest({"kind": kind, "version": version, "spec": spec, "inputs": inputs})
