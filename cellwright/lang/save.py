"""What a forward loop saves for its gradient: the fewest numbers from which the rest can be computed again."""

from collections import deque
from collections.abc import Collection

from .graph import LEAVES, LOOKUPS, ONE, PRODUCTS, Graph

# A vector over the units counts as many numbers as some width that a cell may have; the choice must not depend on it.
_UNITS, _ANY = 64, 10**9


def choose_saved(graph: Graph, free: Collection[int], wanted: Collection[int]) -> tuple[tuple[int, ...], ...]:
    """Split what the gradient needs of the forward nodes: (saved at every step, computed again from what is there).

    `free` nodes are at hand at no cost, as leaves are; a dense product or a look into a memory is never repeated, so it
    is saved or what follows it is. This is a minimum cut between these and the wanted nodes: whatever lies behind the
    cut is computed again. Of equal cuts, the one next to the wanted nodes is taken: it leaves the least to compute.
    """
    at_hand = {i for i in graph.reachable(wanted) if i in free or graph.nodes[i].op in LEAVES}
    nodes = [i for i in graph.reachable(wanted) if i not in at_hand]
    # Each node is an edge (i, "in") -> (i, "out") with the cost of saving it.
    capacity: dict[tuple[object, object], int] = {}
    for i in nodes:
        node = graph.nodes[i]
        capacity[(i, "in"), (i, "out")] = 1 if node.size == ONE else _UNITS
        if node.op in (*PRODUCTS, *LOOKUPS):
            capacity["products", (i, "in")] = _ANY
        else:
            capacity |= {((a, "out"), (i, "in")): _ANY for a in node.args if a not in at_hand}
        if i in wanted:
            capacity[(i, "out"), "wanted"] = _ANY
    _saturate(capacity, "products", "wanted")
    behind = _reaching(capacity, "wanted")
    saved = tuple(i for i in nodes if (i, "out") in behind and (i, "in") not in behind)
    needed = _needed(graph, wanted, at_hand | set(saved))
    return saved, tuple(sorted(needed))


def _needed(graph: Graph, wanted: Collection[int], known: set[int]) -> set[int]:
    """The nodes to compute so that every wanted one is known."""
    todo, found = [i for i in wanted if i not in known], set[int]()
    while todo:
        i = todo.pop()
        if i not in found:
            found.add(i)
            todo += [a for a in graph.nodes[i].args if a not in known]
    return found


def _saturate(capacity: dict[tuple[object, object], int], source: object, sink: object) -> None:
    """Maximum flow by shortest augmenting paths (Edmonds & Karp 1972); `capacity` becomes what is left."""
    follows: dict[object, set[object]] = {}
    for a, b in list(capacity):
        follows.setdefault(a, set()).add(b)
        follows.setdefault(b, set()).add(a)
        capacity.setdefault((b, a), 0)
    while True:
        came: dict[object, object] = {source: None}
        queue = deque([source])
        while queue and sink not in came:
            a = queue.popleft()
            for b in sorted(follows.get(a, ()), key=str):
                if b not in came and capacity[a, b]:
                    came[b] = a
                    queue.append(b)
        if sink not in came:
            return
        path, b = [], sink
        while came[b] is not None:
            path.append((came[b], b))
            b = came[b]
        flow = min(capacity[edge] for edge in path)
        for a, b in path:
            capacity[a, b] -= flow
            capacity[b, a] += flow


def _reaching(capacity: dict[tuple[object, object], int], sink: object) -> set[object]:
    """What can still send flow to the sink."""
    before: dict[object, list[object]] = {}
    for (a, b), left in capacity.items():
        if left:
            before.setdefault(b, []).append(a)
    found, todo = {sink}, [sink]
    while todo:
        for a in before.get(todo.pop(), ()):
            if a not in found:
                found.add(a)
                todo.append(a)
    return found
