/** A row of the table of goals. */
export interface GoalRow {
  readonly work: string;
  readonly goal: string;
  readonly measured: string;
  /** Quartiles, if there are samples. */
  readonly spread: string;
  readonly of_roof: string;
  /** Undefined: not measured. */
  readonly met: boolean | undefined;
}
