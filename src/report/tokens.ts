/** The data of a page of tokens (token-page.ts). All texts are plain text. */
import type { Table } from './report.ts';

export interface TokenPage {
  readonly title: string;
  /** The command line that made the page. */
  readonly command: string;
  /** Names and values: model, sampling options, what ended the text. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  readonly prompt: string;
  /** Time by phase. */
  readonly times: Table;
  readonly tokens: readonly PageToken[];
}

export interface PageToken {
  /** What it adds to the text. */
  readonly text: string;
  /** The token itself, with spaces and line breaks made visible. */
  readonly label: string;
  readonly id: number;
  /** By the model. */
  readonly probability: number;
  readonly rank: number;
  /** In bits, of the model and of what sampling left. */
  readonly entropy: number;
  readonly entropyAfter: number;
  /** Time of the forward that it came from; null where several tokens share one. */
  readonly ms: number | null;
  readonly alternatives: readonly {
    readonly label: string;
    readonly id: number;
    readonly before: number;
    readonly after: number;
    readonly removedBy: string;
  }[];
  readonly stages: readonly {
    readonly name: string;
    readonly left: number;
    readonly removed: number;
    readonly removedProbability: number;
    readonly changed: number;
  }[];
}
