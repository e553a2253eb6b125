/**
 * The plan of a forward pass: a list of steps over row buffers. It says what a model computes and nothing about how.
 *
 * A forward takes T rows; each row is one token of one sequence at one position. Buffers hold one f32 row for each of
 * them (`rows: 'all'`) or for each row whose logits somebody wants (`rows: 'wanted'`).
 */
import type { KvStorage } from '../quant/kv-cache.ts';
import type { Storage } from '../quant/storage.ts';
import type { RopeTable } from './rope.ts';

export type BufferId = number & { readonly buffer?: never };
export type WeightId = number & { readonly weight?: never };
export type RopeId = number & { readonly rope?: never };
/** One key/value cache: the pages of one layer. */
export type CacheId = number & { readonly cache?: never };

export interface RowBuffer {
  readonly name: string;
  /** Values per row. */
  readonly width: number;
  readonly rows: 'all' | 'wanted';
}

export interface KvCacheSpec {
  readonly kvHeads: number;
  readonly headDim: number;
  /** Largest number of keys a token sees, itself included; undefined: all. Odd where attention is bidirectional. */
  readonly window?: number;
  readonly storage: KvStorage;
}

/** Role of a weight in the model; storage policies depend on it. */
export type WeightRole = 'embedding' | 'position' | 'attention' | 'ffn' | 'router' | 'output' | 'norm' | 'bias';

/**
 * Where the bytes of a weight come from: a whole tensor, or rows `first .. first + shape[0]` of its logical [out, in]
 * form.
 */
export interface WeightSource {
  readonly tensor: string;
  /** The file stores [in, out] (GPT-2's Conv1D). */
  readonly transposed: boolean;
  /** First logical row taken, for tensors that hold several layers (fused q/k/v). */
  readonly first: number;
  /** Takes `rows` rows of every `stride`, for fused tensors interleaved per head; default: consecutive rows. */
  readonly runs?: { readonly rows: number; readonly stride: number };
  /** Tensors that are concatenated behind this one, each of the same length: a vector stored as one tensor per head. */
  readonly following?: readonly string[];
  /** Added to every value in f32 at load: 1 for Gemma's (1 + w) norms. */
  readonly plus: number;
}

/** The logical row of the tensor that is row `row` of the weight. */
export const sourceRow = ({ first, runs }: WeightSource, row: number): number =>
  first + (runs ? Math.floor(row / runs.rows) * runs.stride + (row % runs.rows) : row);

export interface PlannedWeight {
  /** Dotted name in this project's words, e.g. `layers.3.attention.q`. */
  readonly name: string;
  readonly role: WeightRole;
  /** [out, in] for matrices (rows x columns for embeddings), [n] for vectors. */
  readonly shape: readonly number[];
  readonly source: WeightSource;
  readonly storage: Storage;
  /** Whether it counts as a linear layer (a tied output head does). */
  readonly linear: boolean;
  /** Reason for the choice of storage; printed by `lanewise plan`. */
  readonly reason: string;
  /** Weight bytes in memory as stored, without padding; 0 when it shares another weight's storage. */
  readonly bytes: number;
  /** The weight whose storage this one uses (a tied output head and its embedding). */
  readonly shares?: WeightId;
}

/** Values per chunk of the step 'summarize'. */
export const SUMMARY_CHUNK = 1024;

export type Activation = 'gelu' | 'gelu_tanh' | 'silu' | 'relu';

/** Buffers that the experts work in. */
export interface ExpertBuffers {
  /** Numbers and shares of a row's experts. [2 * top] */
  readonly choice: BufferId;
  /** The rows of one expert. [dim], [ffn], [ffn], [ffn], [dim] */
  readonly gathered: BufferId;
  readonly gate: BufferId;
  readonly up: BufferId;
  readonly activated: BufferId;
  readonly result: BufferId;
}

/** `out` and inputs are buffers with equal row counts unless said otherwise. */
export type Step = { readonly scope: string } & (
  | {
      /** out[t] (+)= table[index(t)] * scale. Types: of BERT's tokens, which say the text of a pair. */
      readonly op: 'embed';
      readonly table: WeightId;
      readonly index: 'token' | 'position' | 'type';
      readonly scale: number;
      readonly add: boolean;
      readonly out: BufferId;
    }
  | {
      /**
       * Normalises each of `groups` equal parts of a row (1: the whole row; heads: q/k norm) and multiplies by `weight`,
       * where there is one (length width / groups, or width: each part has its own). rms: x / sqrt(mean(x^2) + eps) *
       * w. layer: (x - mean) / sqrt(var + eps) * w + b.
       */
      readonly op: 'norm';
      readonly kind: 'rms' | 'layer';
      readonly x: BufferId;
      readonly weight?: WeightId;
      readonly bias?: WeightId;
      readonly eps: number;
      readonly groups: number;
      readonly out: BufferId;
    }
  | {
      /** out[t][n] (+)= sum over k of x[t][k] * w[n][k], then + bias[n]. With q8_0 and q4_0, x is quantized per 32 first. */
      readonly op: 'matmul';
      readonly x: BufferId;
      readonly weight: WeightId;
      readonly bias?: WeightId;
      readonly add: boolean;
      readonly out: BufferId;
    }
  | {
      /**
       * Mixture of experts: out[t] += sum, in rising order of the experts' numbers, of share * down(f(gate(x[t])) * up(x[t]))
       * over the `top` experts of largest logit router[t][e], the lowest number first where they are equal. Their shares are
       * the softmax over all experts or, normalized, over the chosen ones, then times the expert's factor where there are some.
       */
      readonly op: 'experts';
      readonly x: BufferId;
      /** [experts] */
      readonly router: BufferId;
      readonly top: number;
      readonly normalize: boolean;
      /** [experts] */
      readonly factors?: WeightId;
      readonly kind: Activation;
      /** One matrix per expert. */
      readonly gate: readonly WeightId[];
      readonly up: readonly WeightId[];
      readonly down: readonly WeightId[];
      readonly work: ExpertBuffers;
      readonly out: BufferId;
    }
  | {
      /** Rotates pairs (i, i + rotary/2) of the first `rotary` values of each head by position * frequency. */
      readonly op: 'rope';
      readonly x: BufferId;
      readonly heads: number;
      readonly headDim: number;
      readonly table: RopeId;
      readonly out: BufferId;
    }
  | {
      /**
       * Writes k and v of each row [kvHeads * headDim] into its sequence's pages at its position, as the cache stores
       * them.
       */
      readonly op: 'appendKv';
      readonly cache: CacheId;
      readonly k: BufferId;
      readonly v: BufferId;
    }
  | {
      /**
       * out[t] = softmax(scores) V per head, over the row's own sequence, within the cache's window. A score is
       * s = q[t] . k[p] * scale, then cap * tanh(s / cap) or s + alibi(head, p) * scale where these are given. A row sees
       * positions up to its own or, bidirectional, up to the last of its sequence in this forward; the window then reaches
       * equally far to both sides.
       */
      readonly op: 'attention';
      readonly q: BufferId;
      readonly cache: CacheId;
      readonly heads: number;
      readonly scale: number;
      readonly cap?: number;
      /** Per head its slope: alibi(head, p) = slope * p, all three rounded to bf16. */
      readonly alibi?: readonly number[];
      readonly bidirectional?: boolean;
      readonly out: BufferId;
    }
  | {
      /** out = f(x), or f(x) * up when `up` is given. */
      readonly op: 'activate';
      readonly kind: Activation;
      readonly x: BufferId;
      readonly up?: BufferId;
      readonly out: BufferId;
    }
  | {
      /** out = base + x * scale. */
      readonly op: 'add';
      readonly base: BufferId;
      readonly x: BufferId;
      readonly scale: number;
      readonly out: BufferId;
    }
  | {
      /** out = out * factor, or out * weight[0] where a weight is given. */
      readonly op: 'scale';
      readonly factor: number;
      readonly weight?: WeightId;
      readonly out: BufferId;
    }
  | {
      /** out = cap * tanh(out / cap). */
      readonly op: 'cap';
      readonly cap: number;
      readonly out: BufferId;
    }
  | {
      /** Copies columns `first` and on of x to out. */
      readonly op: 'columns';
      readonly x: BufferId;
      readonly first: number;
      readonly out: BufferId;
    }
  | {
      /** Copies the wanted rows of x ('all') to out ('wanted'). */
      readonly op: 'select';
      readonly x: BufferId;
      readonly out: BufferId;
    }
  | {
      /** For each SUMMARY_CHUNK values of a row of x: the largest, and the sum of e^(value - largest). [2 * chunks] */
      readonly op: 'summarize';
      readonly x: BufferId;
      readonly out: BufferId;
    }
  | {
      /** Keeps a copy of x for inspection under `name` (`hidden.3`, `final`). Added by src/plan/taps.ts. */
      readonly op: 'tap';
      readonly name: string;
      readonly x: BufferId;
      readonly out: BufferId;
    }
);

/** A step of one kind. */
export type StepOf<Op extends Step['op']> = Extract<Step, { op: Op }>;

export interface Plan {
  readonly buffers: readonly RowBuffer[];
  readonly weights: readonly PlannedWeight[];
  readonly caches: readonly KvCacheSpec[];
  readonly ropes: readonly RopeTable[];
  readonly steps: readonly Step[];
  /** Logits, rows 'wanted'; of an encoder the last hidden state, rows 'all'. */
  readonly output: BufferId;
  /** Buffer of the step 'summarize' over the logits. */
  readonly summary?: BufferId;
  /** Tokens that use the table rows of another token: placeholders for images in models loaded without images. */
  readonly readAs?: ReadonlyMap<number, number>;
  /** Taps of the inputs of matrices, by the weight's name, if any were added. */
  readonly inputs?: ReadonlyMap<string, LinearInput>;
}

/** Where the input of a matrix is kept. */
export interface LinearInput {
  /** Name of the tap. */
  readonly tap: string;
  readonly width: number;
  readonly rows: RowBuffer['rows'];
  /** Of an expert's matrix: its inputs are some rows of the tap, see `rowsOfExpert`. `router`: tap of the router's logits. */
  readonly expert?: { readonly index: number; readonly of: number; readonly top: number; readonly router: string };
}

/** Token ids as used to index tables. */
export const tableTokens = ({ readAs }: Plan, tokens: Int32Array): Int32Array =>
  readAs ? tokens.map((token) => readAs.get(token) ?? token) : tokens;
