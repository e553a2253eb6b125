/** Decisions of a load or of a request, as plain data. */

export interface Explanation {
  /** Stable name, for programs: `threads.count`. */
  readonly key: string;
  readonly value: string | number | boolean | null;
  /** What decided: `option threads`, `generation_config.json, top_k`, `machine`, `default`. */
  readonly from: string;
  /** The reason, where `from` does not say it. */
  readonly why?: string;
}

/** `from` of an option that was given, or of its default. */
export const optionOr = (option: string, given: unknown, otherwise = 'default'): string =>
  given === undefined ? otherwise : `option ${option}`;
