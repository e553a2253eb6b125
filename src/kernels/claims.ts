/**
 * Dynamic distribution of work items: threads claim one after the other, so that a slowed-down core takes fewer. The counter
 * is in the step's record and is 0 between runs.
 */
import {
  add,
  atomicAdd,
  atomicStore,
  constant,
  equal,
  type I32,
  type Local,
  type Statement,
  subtract,
  when,
} from '../wasm/assembler.ts';
import { CLAIMS_AT } from './record.ts';

/** Number of rows from which groups of a product are claimed. With fewer, steps are short and fixed shares are cheaper. */
export const CLAIMING_ROWS = 24;

const countOf = (record: Local<'i32'>): I32 => add(record.get, constant(CLAIMS_AT));

/** The number of the next item. */
export const claim = (record: Local<'i32'>): I32 => atomicAdd(countOf(record), constant(1));

/**
 * Resets the counter. Every thread ends with one failed claim (`claimed` is at least `items`); the thread with the last one
 * resets the counter for the next run, which is separated by a barrier.
 */
export const clearClaims = (
  record: Local<'i32'>,
  claimed: Local<'i32'>,
  items: Local<'i32'>,
  threads: Local<'i32'>,
): Statement =>
  when(equal(subtract(claimed.get, items.get), subtract(threads.get, constant(1))), [
    atomicStore(countOf(record), constant(0)),
  ]);
