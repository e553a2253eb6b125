/**
 * Work items that threads claim one after the other instead of dividing them beforehand: a core that others disturb takes
 * fewer. The count lies in the step's record and is 0 between its runs.
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

/** With so many rows the groups of a product are claimed. With fewer, each step is short and equal shares cost less. */
export const CLAIMING_ROWS = 24;

const countOf = (record: Local<'i32'>): I32 => add(record.get, constant(CLAIMS_AT));

/** The number of the next item. */
export const claim = (record: Local<'i32'>): I32 => atomicAdd(countOf(record), constant(1));

/**
 * Every thread ends with one claim for which nothing is left: `claimed`, at least `items`. The last of them clears the count
 * for the next run, which comes after a barrier.
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
