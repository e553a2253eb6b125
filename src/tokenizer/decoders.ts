/**
 * From tokens back to text: the decoders of tokenizer.json as streaming steps. Tokens pushed one by one give the same text
 * as all at once; a step holds back only text that the next token may change.
 */
import { bytesOfToken } from './byte-level.ts';
import { readReplace } from './normalizers.ts';
import type { Settings } from './settings.ts';
import { SPACE_MARK } from './spaces.ts';

/** A step at work on one sequence of tokens. */
export interface DecoderRun {
  push(tokens: readonly string[]): readonly string[];
  /** Returns the text that was held back. */
  end(): readonly string[];
}

export interface DecoderStep {
  /** Whether the step fuses all tokens to one: what `push` returns are then parts of this token. */
  readonly fuses: boolean;
  /** @param fused whether an earlier step fuses: `push` then gets parts of one token */
  start(fused: boolean): DecoderRun;
  /**
   * The step's result for one token in the middle of a text. Bytes are incomplete characters; later steps do not change
   * them.
   */
  inMiddle(token: Piece, fused: boolean): Piece;
}

type Piece = string | Uint8Array;

const encoder = new TextEncoder();

/** Bytes that a token adds to a text in the middle of it. */
export function bytesInMiddle(decoder: DecoderStep, token: string): Uint8Array {
  const piece = decoder.inMiddle(token, false);
  return typeof piece === 'string' ? encoder.encode(piece) : piece;
}

/** @throws TokenizerError */
export function readDecoder(settings: Settings | undefined): DecoderStep {
  if (settings === undefined) return betweenSpaces;
  const type = settings.string('type');
  const read = Object.hasOwn(readers, type) ? readers[type]! : settings.fail('type', 'a known decoder');
  return read(settings);
}

const readers: Readonly<Record<string, (settings: Settings) => DecoderStep>> = {
  Sequence: (settings) => decodeInTurn(settings.objects('decoders').map(readDecoder)),
  ByteLevel: () => byteLevelDecoder,
  ByteFallback: () => byteRunDecoder,
  Fuse: () => fuse,
  Replace: (settings) => eachToken(readReplace(settings), isCharacter(settings)),
  Strip: (settings) =>
    stripDecoder(
      settings.string('content', ' '),
      settings.integer('start', 0, 2 ** 31),
      settings.integer('stop', 0, 2 ** 31),
    ),
  Metaspace(settings) {
    const prepends = settings.has('prepend_scheme')
      ? settings.oneOf('prepend_scheme', ['always', 'first', 'never']) !== 'never'
      : settings.flag('add_prefix_space', true);
    return metaspaceDecoder(settings.string('replacement', '▁'), prepends);
  },
  WordPiece: (settings) => wordPieceDecoder(settings.string('prefix', '##'), settings.flag('cleanup', true)),
  BPEDecoder: (settings) => suffixDecoder(settings.string('suffix', '</w>')),
  CTC: (settings) =>
    ctcDecoder(
      settings.string('pad_token', '<pad>'),
      settings.string('word_delimiter_token', '|'),
      settings.flag('cleanup', true),
    ),
};

const isCharacter = (settings: Settings): boolean =>
  [...(settings.object('pattern').get('String')?.toString() ?? '')].length === 1;

/** Steps in sequence. */
export function decodeInTurn(steps: readonly DecoderStep[]): DecoderStep {
  return {
    fuses: steps.some((step) => step.fuses),
    start(fused) {
      let isFused = fused;
      const runs = steps.map((step) => {
        const run = step.start(isFused);
        isFused ||= step.fuses;
        return run;
      });
      const through = (tokens: readonly string[], from: number): readonly string[] =>
        runs.slice(from).reduce((all, run) => run.push(all), tokens);
      return {
        push: (tokens) => through(tokens, 0),
        end: () => runs.flatMap((run, i) => through(run.end(), i + 1)),
      };
    },
    inMiddle(token, fused) {
      let [piece, isFused] = [token, fused];
      for (const step of steps) {
        piece = step.inMiddle(piece, isFused);
        isFused ||= step.fuses;
      }
      return piece;
    },
  };
}

/** A step that changes each token by itself. @param options.parts whether `each` may be given parts of a token */
function direct(
  each: (token: string, first: boolean) => string,
  { parts = false }: { parts?: boolean } = {},
): DecoderStep {
  return {
    fuses: false,
    start(fused) {
      let first = true;
      const run: DecoderRun = {
        push: (tokens) =>
          tokens.map((token) => {
            const text = each(token, first);
            first = false;
            return text;
          }),
        end: () => [],
      };
      return fused && !parts ? collected(run) : run;
    },
    inMiddle: (token) => (typeof token === 'string' ? each(token, false) : token),
  };
}

/** Collects the parts of a fused token before it runs the step. */
function collected(run: DecoderRun): DecoderRun {
  let all = '';
  return {
    push(tokens) {
      all += tokens.join('');
      return [];
    },
    end: () => [...run.push([all]), ...run.end()],
  };
}

/** @param parts whether `change` may be given parts of a token */
export const eachToken = (change: (token: string) => string, parts: boolean): DecoderStep => direct(change, { parts });

const betweenSpaces = direct((token, first) => (first ? token : ` ${token}`));

export const fuse: DecoderStep = {
  fuses: true,
  start: () => ({ push: (tokens) => tokens, end: () => [] }),
  inMiddle: (token) => token,
};

const newDecoder = (): TextDecoder => new TextDecoder('utf-8', { ignoreBOM: true });

export const byteLevelDecoder: DecoderStep = {
  fuses: true,
  start() {
    const decoder = newDecoder();
    return {
      push: (tokens) => tokens.map((token) => decoder.decode(bytesOfToken(token), { stream: true })),
      end: () => [decoder.decode()],
    };
  },
  inMiddle: (token) => (typeof token === 'string' ? bytesOfToken(token) : token),
};

/**
 * ByteFallback of tokenizer.json: a run of byte tokens that is not valid UTF-8 as a whole becomes one replacement character
 * per byte, so a run is held back until it ends.
 */
const byteRunDecoder: DecoderStep = {
  fuses: false,
  start() {
    let run: number[] = [];
    const flush = (): string[] => {
      if (run.length === 0) return [];
      const bytes = Uint8Array.from(run);
      run = [];
      try {
        return [new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)];
      } catch {
        return ['\ufffd'.repeat(bytes.length)];
      }
    };
    return {
      push: (tokens) =>
        tokens.flatMap((token) => {
          const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
          if (!byte) return [...flush(), token];
          run.push(Number.parseInt(byte[1]!, 16));
          return [];
        }),
      end: flush,
    };
  },
  inMiddle: byteInMiddle,
};

/** The byte of `<0x00>` to `<0xFF>`; other tokens stay unchanged. */
function byteInMiddle(token: Piece): Piece {
  const byte = typeof token === 'string' ? /^<0x([0-9A-Fa-f]{2})>$/.exec(token) : undefined;
  return byte ? Uint8Array.of(Number.parseInt(byte[1]!, 16)) : token;
}

/** Decodes runs of the tokens `<0x00>` to `<0xFF>` as UTF-8, character by character; other tokens stay unchanged. */
export const byteFallbackDecoder: DecoderStep = {
  fuses: false,
  start() {
    const decoder = newDecoder();
    let open = false;
    return {
      push: (tokens) =>
        tokens.flatMap((token) => {
          const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
          const bytes = byte ? Uint8Array.of(Number.parseInt(byte[1]!, 16)) : undefined;
          // Any other token ends an incomplete character.
          const text = bytes || open ? decoder.decode(bytes, { stream: bytes !== undefined }) : '';
          open = bytes !== undefined;
          return bytes ? [text] : text ? [text, token] : [token];
        }),
      end: () => (open ? [decoder.decode()] : []),
    };
  },
  inMiddle: byteInMiddle,
};

/** @param prepends whether a mark was put in front of the text, which is dropped from the first token */
export function metaspaceDecoder(mark: string, prepends: boolean): DecoderStep {
  return direct((token, first) => token.replaceAll(mark, first && prepends ? '' : ' '));
}

export function wordPieceDecoder(prefix: string, cleanup: boolean): DecoderStep {
  return direct((token, first) => {
    const continues = prefix !== '' && token.startsWith(prefix);
    const text = first ? token : continues ? token.slice(prefix.length) : ` ${token}`;
    return cleanup ? cleanUp(text) : text;
  });
}

/** WordPiece in GGUF files, where a mark begins each word. */
export const spacedWordDecoder: DecoderStep = direct((token, first) =>
  cleanUp(token.startsWith(SPACE_MARK) ? (first ? '' : ' ') + token.slice(1) : token),
);

/** Removes the spaces before English punctuation and contractions. */
const cleanUp = (text: string): string =>
  text
    .replaceAll(' .', '.')
    .replaceAll(' ?', '?')
    .replaceAll(' !', '!')
    .replaceAll(' ,', ',')
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(' do not', " don't")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");

/** Turns the suffix at the end of a word into a space, except at the end of the text: the last token is held back. */
function suffixDecoder(suffix: string): DecoderStep {
  return {
    fuses: false,
    start() {
      let last: string | undefined;
      return {
        push: (tokens) =>
          tokens.flatMap((token) => {
            const before = last;
            last = token;
            return before === undefined ? [] : [before.replaceAll(suffix, ' ')];
          }),
        end: () => (last === undefined ? [] : [last.replaceAll(suffix, '')]),
      };
    },
    inMiddle: (token) => (typeof token === 'string' ? token.replaceAll(suffix, ' ') : token),
  };
}

/** Removes `content` up to `start` times from the beginning of each token, and up to `stop` times from its end. */
export function stripDecoder(content: string, start: number, stop: number): DecoderStep {
  const strip = (token: string): string => {
    let [from, to] = [0, token.length];
    for (let i = 0; i < start && content !== '' && token.startsWith(content, from); i++) from += content.length;
    for (let i = 0; i < stop && content !== '' && to > from && token.endsWith(content); i++) {
      if (!token.slice(from, to).endsWith(content)) break;
      to -= content.length;
    }
    return token.slice(from, to);
  };
  const whole = eachToken(strip, false);
  return {
    fuses: false,
    start(fused) {
      if (!fused || stop > 0 || content.length !== 1) return whole.start(fused);
      let left = start;
      return {
        push: (tokens) =>
          tokens.map((token) => {
            let from = 0;
            while (left > 0 && from < token.length && token[from] === content) {
              from++;
              left--;
            }
            if (from < token.length) left = 0;
            return token.slice(from);
          }),
        end: () => [],
      };
    },
    // A fused token is stripped only at the ends of the text.
    inMiddle: (token, fused) => (fused ? token : whole.inMiddle(token, fused)),
  };
}

/** Connectionist temporal classification: runs of equal tokens collapse to one, padding is removed. */
function ctcDecoder(padding: string, delimiter: string, cleanup: boolean): DecoderStep {
  const clean = (token: string): string => {
    const text = token.replaceAll(padding, '');
    return cleanup ? cleanUp(text).replaceAll(delimiter, ' ') : text;
  };
  return {
    fuses: false,
    start(fused) {
      let last: string | undefined;
      const step = direct((token) => {
        const repeated = token === last;
        last = token;
        return repeated ? '' : clean(token);
      });
      return step.start(fused);
    },
    inMiddle: (token) => (typeof token === 'string' ? clean(token) : token),
  };
}

/** @param spaces number of spaces to remove from the beginning of the text */
export const sentencePieceDecoder = (spaces: number): DecoderStep =>
  decodeInTurn([
    eachToken((token) => token.replaceAll(SPACE_MARK, ' '), true),
    byteFallbackDecoder,
    fuse,
    stripDecoder(' ', spaces, 0),
  ]);
