"""Find the disjoint task groups of highest total inter-task similarity (the search that follows eq. 8 of MmAP).

All objectives are additive over groups: for up to 16 tasks the best partitions are found exactly, by dynamic
programming over subsets, beyond that by agglomeration and local search. Ties prefer fewer groups, then lexical order.
The paper only says "maximise the total inter-task similarity"; the plain sum puts all tasks in one group as soon as all
similarities are positive, hence the default `mean`, which is TAG's group score (Fifty et al. 2021) on disjoint groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jax_promptmtl.core.errors import UserError, pick

Groups = tuple[tuple[int, ...], ...]
OBJECTIVES = ("mean", "sum", "centered", "signed")
EXACT_LIMIT = 16


@dataclass(frozen=True)
class Partition:
    """The best partitions found, best first, and the solver.

    Attributes:
      ranking: distinct partitions with their scores; the first is the answer. Exact when the solver is.
      solver: "subset DP" (exact) or "local search" (heuristic; its runner-up is the best other partition it met).
    """

    ranking: tuple[tuple[Groups, float], ...]
    solver: str

    @property
    def groups(self) -> Groups:
        """Task numbers of each group, sorted."""
        return self.ranking[0][0]

    @property
    def score(self) -> float:
        """Value of the objective."""
        return self.ranking[0][1]

    @property
    def runner_up(self) -> Groups | None:
        """The second-best partition, or `None` where only one is legal."""
        return self.ranking[1][0] if len(self.ranking) > 1 else None

    @property
    def runner_up_score(self) -> float | None:
        """Value of the objective for the runner-up."""
        return self.ranking[1][1] if len(self.ranking) > 1 else None

    @property
    def margin(self) -> float | None:
        """How much better the best partition is than the runner-up."""
        return self.score - self.ranking[1][1] if len(self.ranking) > 1 else None


@dataclass(frozen=True)
class Rule:
    """The objective of a group and the constraints on groups.

    Attributes:
      objective: `mean` sums over tasks the mean similarity to the rest of the group; `sum` and `signed` sum over pairs
        (`sum` is meant with `num_groups`, `signed` for similarities of both signs); `centered` sums over pairs the
        similarity minus the mean of all pairs (correlation clustering: finds the number of groups by itself).
      num_groups: the exact number of groups, or `None` for any.
      singletons: `allowed` (a task alone scores 0) or `forbidden`.
      max_group: largest number of tasks in a group, or `None`.
    """

    objective: str = "mean"
    num_groups: int | None = None
    singletons: str = "allowed"
    max_group: int | None = None

    def check(self, num_tasks: int) -> None:
        """Raise a `UserError` where no partition of `num_tasks` tasks is legal."""
        pick(self.objective, OBJECTIVES, "grouping objective")
        pick(self.singletons, ("allowed", "forbidden"), "singletons")
        least, most = 1 + (self.singletons == "forbidden"), self.max_group or num_tasks
        counts = [self.num_groups] if self.num_groups is not None else range(1, num_tasks + 1)
        if not any(k >= 1 and k * least <= num_tasks <= k * most for k in counts):
            raise UserError(
                f"No partition of {num_tasks} tasks has num_groups={self.num_groups}, singletons={self.singletons!r} "
                f"and max_group={self.max_group}; relax one of the three."
            )

    def pairs(self, similarity: np.ndarray) -> np.ndarray:
        """Return the symmetric [N, N] value of each pair, with a zero diagonal."""
        similarity = np.asarray(similarity, np.float64)
        pairs = (similarity + similarity.T) / 2
        if self.objective == "centered" and len(pairs) > 1:
            pairs = pairs - pairs[~np.eye(len(pairs), dtype=bool)].mean()
        np.fill_diagonal(pairs, 0)
        result: np.ndarray = pairs
        return result

    def score(self, totals: np.ndarray, sizes: np.ndarray, illegal: float = -np.inf) -> np.ndarray:
        """Return the scores of groups from their pair sums and sizes; `illegal` where not allowed."""
        worth = 2 * totals / np.maximum(sizes - 1, 1) if self.objective == "mean" else totals
        banned = (sizes == 1) & (self.singletons == "forbidden")
        if self.max_group is not None:
            banned = banned | (sizes > self.max_group)
        return np.where(banned, illegal, worth)

    def value(self, pairs: np.ndarray, groups: Groups) -> float:
        """Return the objective of one partition."""
        totals = np.array([pairs[np.ix_(group, group)].sum() / 2 for group in groups])
        return float(self.score(totals, np.array([len(group) for group in groups])).sum())


DEFAULT_RULE = Rule()


def partition(
    similarity: np.ndarray,
    rule: Rule = DEFAULT_RULE,
    *,
    top: int = 2,
    restarts: int = 20,
    exact_limit: int = EXACT_LIMIT,
) -> Partition:
    """Partition tasks into the disjoint groups of highest total similarity.

    Args:
      similarity: float[N, N]; the diagonal is ignored and the two triangles are averaged.
      rule: objective and constraints.
      top: how many partitions to rank (exact solver; the heuristic ranks the distinct ones it met).
      restarts: seeded random starts of the heuristic, on top of those from average linkage.
      exact_limit: largest N for the exact solver; time grows as 3^N, memory as 2^N.

    Raises:
      UserError: an unknown choice, a similarity that is not finite, or constraints that no partition meets.

    >>> partition(np.array([[0, 3, 1], [3, 0, -1], [1, -1, 0]])).groups
    ((0, 1), (2,))
    """
    num_tasks = len(similarity)
    rule.check(num_tasks)
    if np.shape(similarity) != (num_tasks, num_tasks) or not np.all(np.isfinite(similarity)):
        raise UserError(f"The task similarity must be a finite square matrix, not shape {np.shape(similarity)}.")
    pairs = rule.pairs(similarity)
    if num_tasks <= exact_limit:
        return Partition(_rank_exactly(pairs, rule, top), "subset DP")
    return Partition(_rank_locally(pairs, rule, top, restarts), "local search")


def _tolerance(pairs: np.ndarray) -> float:
    """Return the score difference below which partitions tie: far above rounding error, far below any signal."""
    return 1e-10 * len(pairs) * float(np.abs(pairs).max(initial=0.0))


# --- exact: F(mask, k) = max over groups A in mask, with its first task in A, of f(A) + F(mask - A, k - 1) ---


def _members(mask: int) -> tuple[int, ...]:
    return tuple(task for task in range(int(mask).bit_length()) if mask >> task & 1)


def _subset_scores(pairs: np.ndarray, rule: Rule) -> np.ndarray:
    """Return the worth of every set of tasks, float[2^N], indexed by bit mask."""
    totals, sizes = np.zeros(1), np.zeros(1, int)
    for task in range(len(pairs)):
        links = np.zeros(1)
        for other in range(task):
            links = np.concatenate([links, links + pairs[task, other]])
        totals = np.concatenate([totals, totals + links])
        sizes = np.concatenate([sizes, sizes + 1])
    return rule.score(totals, sizes)


def _groups_of_first(mask: int) -> np.ndarray:
    """Return the bit masks of all subsets of `mask` that contain its first task."""
    first = mask & -mask
    subsets = np.array([first])
    for task in _members(mask ^ first):
        subsets = np.concatenate([subsets, subsets | 1 << task])
    return subsets


def _best_rests(scores: np.ndarray, num_tasks: int) -> np.ndarray:
    """Return F float[2^N, N + 1]: the best score of a set cut into k groups; sets with task 0 are never a rest."""
    best = np.full((len(scores), num_tasks + 1), -np.inf)
    best[0, 0] = 0
    for mask in range(2, len(scores), 2):
        groups = _groups_of_first(mask)
        groups = groups[scores[groups] > -np.inf]
        if len(groups):
            best[mask, 1:] = (scores[groups, None] + best[mask ^ groups, :-1]).max(0)
    return best


@dataclass(frozen=True)
class _Branch:
    """All partitions that start with the groups `prefix` and whose next group is not in `banned` (Lawler 1972)."""

    prefix: tuple[int, ...]
    banned: frozenset[int]


def _solve(
    branch: _Branch, scores: np.ndarray, rests: np.ndarray, rule: Rule, slack: float
) -> tuple[float, tuple[int, ...]] | None:
    """Return (score, bit masks of the groups) of the best partition of a branch, or `None` if it has none."""
    rest = (len(scores) - 1) & ~sum(branch.prefix)
    spent = sum(scores[group] for group in branch.prefix)
    groups = np.array([g for g in _groups_of_first(rest) if g not in branch.banned], int)
    if not len(groups):
        return None
    reach = (spent + scores[groups, None] + rests[rest ^ groups]).max(0)  # by number of groups after the next one
    counts = np.arange(len(reach)) + len(branch.prefix) + 1
    if rule.num_groups is not None:
        reach = np.where(counts == rule.num_groups, reach, -np.inf)
    if reach.max() == -np.inf:
        return None
    target = reach.max() - slack
    left = int(np.argmax(reach >= target))  # ties: fewer groups
    chosen = list(branch.prefix)
    while rest:
        fits = groups[spent + scores[groups] + rests[rest ^ groups, left] >= target]
        group = int(min(fits, key=_members))  # ties: lexicographic
        chosen.append(group)
        spent, rest, left = spent + scores[group], rest ^ group, left - 1
        groups = _groups_of_first(rest) if rest else groups
    return spent, tuple(chosen)


def _rank_exactly(pairs: np.ndarray, rule: Rule, top: int) -> tuple[tuple[Groups, float], ...]:
    """Return the `top` best partitions: solve, cut the solution out of its branch, and go on with the pieces."""
    scores, slack = _subset_scores(pairs, rule), _tolerance(pairs)
    rests = _best_rests(scores, len(pairs))
    whole = _Branch((), frozenset())
    solution = _solve(whole, scores, rests, rule, slack)
    open_branches = [] if solution is None else [(whole, solution)]
    ranking: list[tuple[Groups, float]] = []
    while open_branches and len(ranking) < top:
        found = [(score, tuple(map(_members, masks))) for _, (score, masks) in open_branches]
        index = _first(found, slack)
        ranking.append((found[index][1], rule.value(pairs, found[index][1])))
        branch, (_, groups) = open_branches.pop(index)
        for depth in range(len(branch.prefix), len(groups)):
            banned = (branch.banned if depth == len(branch.prefix) else frozenset()) | {groups[depth]}
            piece = _Branch(groups[:depth], banned)
            solution = _solve(piece, scores, rests, rule, slack)
            if solution is not None:
                open_branches.append((piece, solution))
    return tuple(ranking)


def _first(found: list[tuple[float, Groups]], slack: float) -> int:
    """Return the index of the best (score, groups): highest score, then fewer groups, then lexicographic."""
    target = max(score for score, _ in found) - slack
    ties = [index for index, (score, _) in enumerate(found) if score >= target]
    return min(ties, key=lambda index: (len(found[index][1]), found[index][1]))


# --- heuristic: average linkage, then steepest ascent over single moves and swaps ---


def _canonical(labels: np.ndarray) -> Groups:
    """Return the groups of a label vector int[N], each sorted, in the order of their first tasks."""
    return tuple(sorted(tuple(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)))


def _linkage(pairs: np.ndarray) -> Iterator[np.ndarray]:
    """Yield labels int[N] at every level of average-linkage agglomeration, from N groups down to one."""
    labels = np.arange(len(pairs))
    yield labels
    for _ in range(len(pairs) - 1):
        member = np.eye(len(pairs))[labels][:, np.unique(labels)]
        sizes = member.sum(0)
        linkage = member.T @ pairs @ member / np.outer(sizes, sizes)
        np.fill_diagonal(linkage, -np.inf)
        into, gone = np.unique(labels)[list(np.unravel_index(linkage.argmax(), linkage.shape))]
        labels = np.where(labels == gone, into, labels)
        yield np.unique(labels, return_inverse=True)[1]


def _penalised(totals: np.ndarray, sizes: np.ndarray, rule: Rule, penalty: float) -> np.ndarray:
    """Return scores where an illegal group costs `penalty`, so that the search can pass through it."""
    worth = rule.score(totals, sizes, -penalty)
    if rule.max_group is not None:
        worth = worth - penalty * np.maximum(sizes - rule.max_group, 0)
    return np.where(sizes == 0, -penalty if rule.num_groups is not None else 0.0, worth)


def _neighbours(
    labels: np.ndarray, columns: int, pairs: np.ndarray, rule: Rule, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gains of moving task t to group b, float[N, columns], and of swapping tasks t and u, float[N, N]."""
    member = np.eye(columns)[labels]
    links = pairs @ member  # of task t with all tasks of group b
    totals, sizes = (links * member).sum(0) / 2, member.sum(0)
    now = _penalised(totals, sizes, rule, penalty)
    own, home = links[np.arange(len(labels)), labels], now[labels]
    leave = _penalised(totals[labels] - own, sizes[labels] - 1, rule, penalty) - home
    moves = leave[:, None] + _penalised(totals + links, np.broadcast_to(sizes + 1, links.shape), rule, penalty) - now
    alone = sizes[labels] == 1  # moving such a task to an empty group, or swapping two of them, changes nothing
    moves[(member > 0) | alone[:, None] & (sizes == 0)] = -np.inf
    after = totals[labels][:, None] - own[:, None] + links[:, labels].T - pairs  # the group of t, with u in t's place
    swap = _penalised(after, np.broadcast_to(sizes[labels][:, None], after.shape), rule, penalty) - home[:, None]
    return moves, np.where((labels[:, None] == labels) | alone[:, None] & alone, -np.inf, swap + swap.T)


def _climb(labels: np.ndarray, pairs: np.ndarray, rule: Rule, penalty: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Apply the best single move or swap until none helps; return the optimum and its best legal neighbour."""
    columns = rule.num_groups or len(labels)
    while True:
        moves, swaps = _neighbours(labels, columns, pairs, rule, penalty)
        gain = max(moves.max(), swaps.max())
        step = labels.copy()
        if moves.max() >= swaps.max():
            task, group = np.unravel_index(moves.argmax(), moves.shape)
            step[task] = group
        else:
            one, two = np.unravel_index(swaps.argmax(), swaps.shape)
            step[[one, two]] = labels[[two, one]]
        if gain <= _tolerance(pairs):
            return labels, step if gain > -penalty / 2 else None
        labels = step


def _rank_locally(pairs: np.ndarray, rule: Rule, top: int, restarts: int) -> tuple[tuple[Groups, float], ...]:
    """Return the best distinct partitions met by local search from average linkage and from seeded random starts."""
    num_tasks, rng = len(pairs), np.random.default_rng(0)
    penalty = 1e4 * num_tasks * (np.abs(pairs).max(initial=0.0) + np.finfo(float).tiny)
    starts = [labels for labels in _linkage(pairs) if rule.num_groups in (None, labels.max() + 1)]
    starts = sorted(starts, key=lambda labels: -rule.value(pairs, _canonical(labels)))[:5]
    most = [rule.num_groups or int(rng.integers(1, num_tasks + 1)) for _ in range(restarts)]
    starts += [rng.permutation(np.arange(num_tasks) % count) for count in most]
    met: dict[Groups, float] = {}
    for labels in starts:
        for found in _climb(labels, pairs, rule, penalty):
            if found is not None:
                met[_canonical(found)] = rule.value(pairs, _canonical(found))
    left = [(score, groups) for groups, score in met.items() if score > -np.inf]
    ranking: list[tuple[Groups, float]] = []
    while left and len(ranking) < top:
        score, groups = left.pop(_first(left, _tolerance(pairs)))
        ranking.append((groups, score))
    if not ranking:
        raise UserError(f"Local search found no legal partition of {num_tasks} tasks; relax num_groups or max_group.")
    return tuple(ranking)
