"""Whatever is put, asked for, removed and resized: the cache does what the paper's three queues do."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from streamgate.native.s3fifo import Cache


@dataclass
class Held:
    value: int
    size: int
    hits: int = 0


@dataclass
class Model:
    """S3-FIFO (Yang et al., SOSP 2023, algorithm 1) in ordered dictionaries, oldest first."""

    capacity: int
    small: OrderedDict[bytes, Held] = field(default_factory=OrderedDict)
    main: OrderedDict[bytes, Held] = field(default_factory=OrderedDict)
    ghost: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    full: bool = False
    evicted: list[bytes] = field(default_factory=list)

    @property
    def trial(self) -> int:
        return self.capacity // 10

    def held(self) -> int:
        return sum(held.size for queue in (self.small, self.main) for held in queue.values())

    def get(self, key: bytes) -> int | None:
        found = self.small.get(key) or self.main.get(key)
        if found is None:
            return None
        found.hits = min(found.hits + 1, 3)
        return found.value

    def put(self, key: bytes, value: int, size: int) -> bool:
        for queue in (self.small, self.main):
            if key in queue:
                if size > self.capacity - self.trial:
                    del queue[key]
                    return False
                queue[key].value, queue[key].size = value, size
                self.shrink(0)
                return key in self.small or key in self.main
        known = self.ghost.pop(key, None) is not None
        if size > self.capacity - self.trial:
            return False
        if not known and size >= self.trial:
            self.remember(key, size)
            return False
        self.shrink(size)
        early = not self.full and sum(held.size for held in self.small.values()) >= self.trial
        (self.main if known or early else self.small)[key] = Held(value, size)
        return True

    def remove(self, key: bytes) -> bool:
        return self.small.pop(key, None) is not None or self.main.pop(key, None) is not None

    def remember(self, key: bytes, size: int) -> None:
        if key not in self.ghost:
            while self.ghost and sum(self.ghost.values()) + size > self.capacity - self.trial:
                self.ghost.popitem(last=False)
            self.ghost[key] = size

    def shrink(self, extra: int) -> None:
        while self.held() + extra > self.capacity:
            self.evict()

    def evict(self) -> None:
        self.full = True
        while True:
            heavy = sum(held.size for held in self.main.values()) > self.capacity - self.trial
            if heavy or not self.small:
                key, held = self.main.popitem(last=False)
                if not held.hits:
                    break
                held.hits -= 1
            else:
                key, held = self.small.popitem(last=False)
                if held.hits < 2:
                    self.remember(key, held.size)
                    break
                held.hits = 0
            self.main[key] = held
        self.evicted.append(key)


KEYS = st.integers(0, 30).map(lambda n: f"/v/film/v{n}".encode())
STEPS = st.one_of(
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("ask"), KEYS, st.integers(1, 40)),
    st.tuples(st.just("put"), KEYS, st.one_of(st.integers(1, 60), st.integers(60, 700))),
    st.tuples(st.just("remove"), KEYS),
    st.tuples(st.just("resize"), st.integers(0, 900)),
    st.tuples(st.just("clear")),
)


@given(st.integers(0, 600), st.lists(STEPS, max_size=300))
def test_it_is_the_model(capacity: int, steps: list[tuple[str, *tuple[object, ...]]]) -> None:
    evicted: list[bytes] = []
    cache: Cache[int] = Cache(capacity, lambda key, value: evicted.append(key))
    model = Model(capacity)
    for number, (name, *given_) in enumerate(steps):
        match name, given_:
            case "get", [bytes(key)]:
                assert cache.get(key) == model.get(key)
            case "ask", [bytes(key), int(size)]:
                found = cache.get(key)
                assert found == model.get(key)
                if found is None:
                    assert cache.put(key, number, size) == model.put(key, number, size)
            case "put", [bytes(key), int(size)]:
                assert cache.put(key, number, size) == model.put(key, number, size)
            case "remove", [bytes(key)]:
                assert cache.remove(key) == model.remove(key)
            case "resize", [int(size)]:
                cache.resize(size)
                model.capacity = size
                model.shrink(0)
            case _:
                cache.clear()
                for queue in (model.small, model.main, model.ghost):
                    queue.clear()
        assert cache.keys() == [*model.small, *model.main]
        assert (cache.bytes, len(cache)) == (model.held(), len(model.small) + len(model.main))
        assert cache.bytes <= cache.capacity
    assert evicted == model.evicted and cache.evictions == len(evicted)
