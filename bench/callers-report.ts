/** What bench/callers.ts writes: each part that was measured. Times are milliseconds. */

export interface CallersReport {
  readonly model: string;
  /** Load average when it began. */
  readonly load: number;
  batch?: { readonly callsPerSecond: number; readonly batchPerSecond: number; readonly ratio: number };
  gap?: {
    readonly medianMs: number;
    readonly p99Ms: number;
    readonly maxMs: number;
    readonly promptPerSecond: number;
    readonly alonePerSecond: number;
    /** Of the rate alone. */
    readonly share: number;
    /** First token of the short prompt, and what it takes alone. */
    readonly firstMs: number;
    readonly ownMs: number;
    readonly stepMs: number;
    /** Steps that the short prompt took longer than alone. */
    readonly stepsWaited: number;
  };
  turn?: {
    readonly rows: readonly { readonly cold: number; readonly warm: number; readonly cached: number }[];
    readonly share: number;
  };
  /** 99th percentiles. */
  cancel?: { readonly queue: number; readonly prefill: number; readonly decode: number; readonly stepMs: number };
  loop?: { readonly p99Ms: number; readonly maxMs: number };
  hosting?: { readonly decodeRatio: number; readonly firstTokenMs: number };
  restore?: {
    readonly bytes: number;
    readonly ms: number;
    readonly gigabytesPerSecond: number;
    readonly cachedTokens: number;
  };
}
