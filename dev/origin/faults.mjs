// What a test may make the origin do wrong: be slow, fail, hang, reset. Set from the handle only, never by a request.
//
// Always: a fault comes before any work, so a request that fails has changed nothing; the delay comes after the work,
// just before the answer.

import { setTimeout as sleep } from 'node:timers/promises';

const MODES = [500, 503, 'hang', 'reset'];

export class Faults {
  #mode = null;
  #left = 0;
  #delayMs = 0;
  #closing = new AbortController();

  constructor(delayMs) {
    this.delay(delayMs);
  }

  /** `mode`: 500, 503, 'hang' or 'reset' for the next `times` requests; null: no more faults. */
  fail(mode, { times = Number.POSITIVE_INFINITY } = {}) {
    if (mode !== null && !MODES.includes(mode)) throw new RangeError(`fail takes null or one of ${MODES.join(', ')}`);
    this.#mode = mode;
    this.#left = times;
  }

  /** Milliseconds added before every answer. */
  delay(ms) {
    if (!(ms >= 0 && ms <= 600_000)) throw new RangeError('a delay is from 0 to 600000 ms');
    this.#delayMs = ms;
  }

  /** The fault the next request meets, or null. */
  take() {
    if (this.#mode === null || this.#left <= 0) return null;
    this.#left -= 1;
    return this.#mode;
  }

  async beforeAnswer() {
    if (this.#delayMs > 0) await sleep(this.#delayMs, undefined, { signal: this.#closing.signal });
  }

  close() {
    this.#closing.abort();
  }
}
