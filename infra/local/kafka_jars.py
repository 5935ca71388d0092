"""Kafka's jars: those of `kafka.lock`, fetched once a user from Maven Central by jgo, SHA-256 checked.

`python -m infra.local.kafka_jars 4.1.2 > infra/local/kafka.lock` resolves another version.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from infra.local.part import PartFailed

LOCK = Path(__file__).with_name("kafka.lock")
LOOK_EVERY_S = 0.2
# Hears (jars done, jars in all) a few times a second while jars are fetched; it may raise to end that.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Jar:
    """A line of kafka.lock: `group:artifact:version sha256:hex`."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """Its name in the class path."""
        return f"{self.artifact}-{self.version}.jar"

    def is_at(self, path: Path) -> bool:
        """Whether `path` holds exactly this jar."""
        return path.is_file() and _sha256(path) == self.sha256


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def locked_jars() -> list[Jar]:
    """All jars of the class path."""
    jars = []
    for line in LOCK.read_text(encoding="ascii").splitlines():
        coordinate, digest = line.split()
        group, artifact, version = coordinate.split(":")
        jars.append(Jar(group, artifact, version, digest.removeprefix("sha256:")))
    return jars


def kafka_version() -> str:
    """The version of the broker; every kafka-* jar has it."""
    versions = {jar.version for jar in locked_jars() if jar.group == "org.apache.kafka"}
    (version,) = versions
    return version


def cache_dir() -> Path:
    """Where the jars of this version are kept, for all checkouts of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "crypto-asset-tracker" / f"kafka-{kafka_version()}"


def ensure_jars(progress: Progress = lambda done, total: None) -> Path:
    """The directory with all jars, fetching what is missing. Raises PartFailed when that can't be done.

    Several stacks may ask at once (one fetches, the rest wait), and a fetch that was killed goes on where it
    was: the directory gets its name only when it is whole. When `progress` raises, so does this, at once:
    downloads under way are left to their threads.
    """
    home = cache_dir()
    if home.is_dir():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with _exclusively(home.with_suffix(".lock"), progress):
        if not home.is_dir():
            draft = home.with_suffix(".draft")
            draft.mkdir(exist_ok=True)
            _fetch_all(draft, progress)
            draft.rename(home)
    return home


@contextmanager
def _exclusively(lock_file: Path, progress: Progress) -> Iterator[None]:
    with lock_file.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress(0, len(locked_jars()))
                time.sleep(LOOK_EVERY_S)
        yield


def _fetch_all(draft: Path, progress: Progress) -> None:
    jars = locked_jars()
    # jgo takes any file that exists in its repository for whole, so it gets one of its own, for this attempt.
    scratch = draft / "repository"
    shutil.rmtree(scratch, ignore_errors=True)
    pool = ThreadPoolExecutor(6, thread_name_prefix="kafka-jars")
    fetches = [pool.submit(_fetch, jar, draft, scratch) for jar in jars]
    try:
        pending = set(fetches)
        while pending:
            done, pending = wait(fetches, timeout=LOOK_EVERY_S, return_when=FIRST_EXCEPTION)
            for fetched in done:
                fetched.result()
            progress(len(done), len(jars))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    shutil.rmtree(scratch, ignore_errors=True)


def _fetch(jar: Jar, draft: Path, scratch: Path) -> None:
    target = draft / jar.filename
    if jar.is_at(target):
        return
    try:
        fetched = _download(jar, scratch)
    except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
        raise PartFailed(f"could not fetch {jar.filename} from Maven Central: {error}") from error
    if not jar.is_at(fetched):
        raise PartFailed(f"{jar.filename} from Maven Central is not the one in {LOCK.name}: wrong SHA-256")
    fetched.replace(target)


@retry(
    retry=retry_if_exception_type((OSError, RuntimeError)),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(max=5),
    reraise=True,
)
def _download(jar: Jar, scratch: Path) -> Path:
    repository = scratch / jar.artifact  # a cut download leaves a part of the file: never look at it again
    shutil.rmtree(repository, ignore_errors=True)
    context = _maven(repository)
    return Path(context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve())


def _maven(repository: Path | None = None) -> Any:
    """jgo's Maven, with the repositories (mirrors) of the user's jgo configuration."""
    from jgo.config import GlobalSettings  # noqa: PLC0415 - slow to import, and needed once
    from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
    from jgo.maven import MavenContext  # noqa: PLC0415

    repositories = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    return MavenContext(repo_cache=repository, local_repos=[], remote_repos=repositories, timeout=60)


def resolve(version: str) -> list[str]:
    """The lines of kafka.lock for a Kafka version.

    The log4j binding is added by its coordinate alone: resolved together with Kafka it drags in other
    versions of Kafka's own jars, and the broker dies.
    """
    import jgo  # noqa: PLC0415

    artifacts = jgo.resolve(f"org.apache.kafka:kafka_2.13:{version}")
    log4j = next(a.version for a in artifacts if a.artifactId == "log4j-core")
    binding = _maven().project("org.apache.logging.log4j", "log4j-slf4j-impl").at_version(log4j).artifact()
    return sorted(
        f"{a.groupId}:{a.artifactId}:{a.version} sha256:{_sha256(a.resolve())}" for a in [*artifacts, binding]
    )


if __name__ == "__main__":
    print("\n".join(resolve(sys.argv[1])))
