"""What `benchmarks/merging.py` prints: tables, ratios, and which promises are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Row = Mapping[str, Any]
MERGEKIT = ("mergekit_api", "mergekit_cli")
TITLES = {
    "plain": "plain read + write",
    "ours": "ours, cold",
    "ours, cached": "ours, statistics cached",
    "ours, float64": "ours, cold, float64",
    "mergekit_api": "mergekit in memory",
    "mergekit_cli": "mergekit-yaml",
    "st_merge": "SentenceTransformer.merge",
    "live_ours": "ours, into a live model",
    "live_mergekit": "mergekit in memory",
}
FASTER = {"multislerp": (3.0, 10.0), "ties": (10.0, None)}
"""How many times faster than mergekit, cold and with statistics cached."""
SLOWEST = 2.0
"""Most times as long as a plain read and write."""
MOST_BYTES = 1e9
SAME_MEMORY = 1.1
"""Most that memory may grow when the model has twice the layers."""


@dataclass(frozen=True)
class Goal:
    """One promise and what was measured.

    Attributes:
        what: what is compared.
        value: the ratio, or bytes.
        bound: what it has to reach.
        most: whether the bound is the most (else the least) that the value may be.
    """

    what: str
    value: float
    bound: float
    most: bool

    @property
    def reached(self) -> bool:
        """Whether the promise is kept."""
        return self.value <= self.bound if self.most else self.value >= self.bound

    def spec(self) -> dict[str, Any]:
        """The goal as JSON."""
        return asdict(self) | {"reached": self.reached}


def fastest(rows: Mapping[str, Row], names: Sequence[str]) -> tuple[str, float] | None:
    """Which of these worked and took the least time; seconds."""
    times = {name: rows[name]["wall"] for name in names if name in rows and "wall" in rows[name]}
    return min(times.items(), key=lambda item: item[1]) if times else None


def goals_of_group(shape: str, method: str, name: str, rows: Mapping[str, Row]) -> list[Goal]:
    """Ratios of one group of merges on disk."""
    if any("wall" not in rows[one] for one in ("ours", "plain")):
        return [Goal(f"{shape}, {name}: ours failed", 0.0, 1.0, False)]
    place, cold = f"{shape}, {name}:", rows["ours"]["wall"]
    goals = [Goal(f"{place} cold / plain read + write", cold / rows["plain"]["wall"], SLOWEST, True)]
    goals.append(Goal(f"{place} own memory / stated bound", rows["ours"]["own"] / rows["ours"]["bound"], 1.0, True))
    peer = fastest(rows, MERGEKIT)
    if peer and method in FASTER:
        wanted, wanted_cached = FASTER[method]
        goals.append(Goal(f"{place} {TITLES[peer[0]]} / cold", peer[1] / cold, wanted, False))
        if wanted_cached and "wall" in rows.get("ours, cached", {}):
            ratio = peer[1] / rows["ours, cached"]["wall"]
            goals.append(Goal(f"{place} {TITLES[peer[0]]} / cached, disk to disk", ratio, wanted_cached, False))
    return goals


def goals_of_memory(groups: Sequence[Mapping[str, Any]], full: str, half: str) -> list[Goal]:
    """Memory of ours at full size, and against half the layers."""
    goals = []
    found = {(group["shape"], group["merge"]): group["rows"].get("ours", {}).get("peak") for group in groups}
    for (shape, merge), peak in found.items():
        if shape != full or peak is None:
            continue
        goals.append(Goal(f"{full}, {merge}: extra memory, bytes", peak, MOST_BYTES, True))
        smaller = found.get((half, merge))
        if smaller:
            goals.append(Goal(f"{full}, {merge}: extra memory / that of {half}", peak / smaller, SAME_MEMORY, True))
    return goals


def print_group(title: str, rows: Mapping[str, Row], moved: int, apart: Mapping[str, Mapping[str, float]]) -> None:
    """Table of one group: medians; ``moved`` bytes are read and written."""
    print(f"\n{title}")
    titles = ("wall s", "CPU s", "peak MB", "own MB", "MB/s", "/ plain", "/ ours", "runs")
    print(" " * 28 + "".join(f"{title:>9}" for title in titles))
    plain, ours = (rows.get(name, {}).get("wall") for name in ("plain", "ours"))
    for name, row in rows.items():
        if "error" in row:
            print(f"{TITLES[name]:28}fails: {row['error'][:100]}")
            continue
        shares = [f"{row['wall'] / other:9.2f}" if other else f"{'':9}" for other in (plain, ours)]
        print(
            f"{TITLES[name]:28}{row['wall']:9.3f}{row['cpu']:9.3f}{row['peak'] / 1e6:9.0f}{row['own'] / 1e6:9.0f}"
            f"{moved / row['wall'] / 1e6:9.0f}{''.join(shares)}{row['runs']:9}"
        )
    for name, gap in apart.items():
        print(
            f"  ours and {TITLES[name]}: most |a - b| / |b| of a tensor {gap['relative']:.1e}, of its update "
            f"{gap['update']:.1e}; {gap['share']:.3%} of the elements differ by more than rounding"
        )


def print_live(shape: str, name: str, rows: Mapping[str, Row]) -> list[Goal]:
    """Table of merges in memory, and their ratio."""
    print(f"\n{shape}: {name}, members in memory, nothing read or written")
    for who, row in rows.items():
        times = "" if "error" in row else f"{row['wall']:9.3f} s wall {row['cpu']:9.3f} s CPU"
        print(f"{TITLES[who]:28}{times or 'fails: ' + row['error'][:100]}")
    if any("error" in row for row in rows.values()):
        return []
    ratio = rows["live_mergekit"]["wall"] / rows["live_ours"]["wall"]
    return [Goal(f"{shape}, {name}: mergekit in memory / cached, into a live model", ratio, 10.0, False)]


def print_goals(goals: Sequence[Goal]) -> None:
    """What the project promises about merging, and whether it holds here."""
    print("\nPromises")
    for goal in goals:
        value, bound = (f"{number:.3g}" for number in (goal.value, goal.bound))
        mark = "reached" if goal.reached else "NOT REACHED"
        print(f"  {mark:12}{goal.what}: {value} ({'at most' if goal.most else 'at least'} {bound})")
