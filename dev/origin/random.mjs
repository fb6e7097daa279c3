// A small deterministic random source for the seed (mulberry32). Not for secrets.
//
// Always: the same seed gives the same sequence on every machine; nothing here reads a clock or Math.random.

/** A source of 32-bit randomness with the draws the seed needs. */
export class Random {
  #state;

  constructor(seed) {
    this.#state = seed >>> 0;
  }

  /** A number in [0, 1). */
  unit() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  }

  /** An integer in [0, bound). */
  below(bound) {
    return Math.floor(this.unit() * bound);
  }

  chance(probability) {
    return this.unit() < probability;
  }

  pick(list) {
    return list[this.below(list.length)];
  }

  /** An element whose likelihood falls with its position; the first share s of the list is drawn s^(1/skew) of the time. */
  pickSkewed(list, skew) {
    return list[Math.floor(list.length * this.unit() ** skew)];
  }

  /** `count` different elements by the given draw; `count` must be well below the number of elements. */
  distinct(count, draw) {
    const chosen = new Set();
    while (chosen.size < count) chosen.add(draw());
    return [...chosen];
  }

  /** A shuffled copy (Fisher-Yates). */
  shuffled(list) {
    const copy = [...list];
    for (let last = copy.length - 1; last > 0; last -= 1) {
      const other = this.below(last + 1);
      [copy[last], copy[other]] = [copy[other], copy[last]];
    }
    return copy;
  }
}
