/**
 * Random numbers that are the same on every machine: xoshiro128** 1.1 by Blackman and Vigna (prng.di.unimi.it). Its four
 * state words are two outputs of SplitMix64 (low word first), so that every bit of a 53-bit seed matters.
 */
export class Random {
  private readonly state: Uint32Array;

  /** @param seed integer from 0 to 2^53 - 1 */
  constructor(seed: number) {
    const next = splitMix64(BigInt(seed));
    const [a, b] = [next(), next()];
    this.state = Uint32Array.of(Number(a & 0xffffffffn), Number(a >> 32n), Number(b & 0xffffffffn), Number(b >> 32n));
  }

  /** Another generator that gives the numbers that come next of this one. */
  clone(): Random {
    const copy = new Random(0);
    copy.state.set(this.state);
    return copy;
  }

  /** 32 random bits. */
  next(): number {
    const s = this.state;
    const result = Math.imul(rotate(Math.imul(s[1]!, 5), 7), 9) >>> 0;
    const t = s[1]! << 9;
    s[2]! ^= s[0]!;
    s[3]! ^= s[1]!;
    s[1]! ^= s[2]!;
    s[0]! ^= s[3]!;
    s[2]! ^= t;
    s[3] = rotate(s[3]!, 11);
    return result;
  }

  /** A multiple of 2^-53 in [0, 1). */
  uniform(): number {
    const high = this.next() >>> 5;
    const low = this.next() >>> 6;
    return (high * 0x4000000 + low) * 2 ** -53;
  }
}

const rotate = (x: number, by: number): number => (x << by) | (x >>> (32 - by));

/** Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014). 64-bit outputs. */
export function splitMix64(seed: bigint): () => bigint {
  const mask = (1n << 64n) - 1n;
  let state = seed;
  return () => {
    state = (state + 0x9e3779b97f4a7c15n) & mask;
    let z = state;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask;
    return z ^ (z >> 31n);
  };
}

/**
 * Seed of sample `index` of a request with seed `seed`. The first sample has `seed` itself, so that it equals a request for
 * one sample; the others have the low 53 bits of the first output of SplitMix64 seeded with m + index, where m is the first
 * output of SplitMix64 seeded with `seed`.
 *
 * @param seed integer from 0 to 2^53 - 1
 * @param index from 0
 */
export function seedOfSample(seed: number, index: number): number {
  if (index === 0) return seed;
  // The seed is mixed before the index is added, so that consecutive seeds do not share samples.
  const mixed = splitMix64(BigInt(seed))();
  return Number(splitMix64(mixed + BigInt(index))() & ((1n << 53n) - 1n));
}

/** A random seed of 53 bits, for requests without a seed. */
export function randomSeed(): number {
  const words = globalThis.crypto.getRandomValues(new Uint32Array(2));
  return (words[0]! & 0x1fffff) * 2 ** 32 + words[1]!;
}
