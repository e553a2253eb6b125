/**
 * Recognizes files that are not the model's file: pointers of version control, HTML pages and error messages of
 * servers.
 */
import { FormatError } from '../errors.ts';
import type { ByteSource } from './bytes.ts';

/** Bytes at the start of a file that are looked at. */
export const IMPOSTOR_BYTES = 256;

export interface Impostor {
  /** `a Git LFS pointer` */
  readonly what: string;
  /** How to get the file itself. */
  readonly remedy: string;
}

const again = 'download the file again, or the model with `lanewise download ORG/NAME`';
const pull = (command: string): string =>
  `run \`${command}\` in its folder, or fetch the model with \`lanewise download ORG/NAME\``;

const forms: readonly (readonly [RegExp, (found: RegExpExecArray, text: string) => Impostor])[] = [
  [
    /^version https?:\/\/(?:git-lfs|hawser|git-media)\b/,
    (_, text) => {
      const [, size] = /^size (\d+)\s*$/m.exec(text) ?? [];
      const of = size === undefined ? '' : ` (the file has ${size} bytes)`;
      return { what: `a Git LFS pointer${of}`, remedy: pull('git lfs pull') };
    },
  ],
  [/^# xet version \d/, () => ({ what: 'a Git Xet pointer', remedy: pull('git xet checkout') })],
  // Pages may begin with a declaration of XML or with a comment, which can be longer than what is looked at.
  [
    /^(?:<\?xml\b[^>]*>\s*)?<(?:!doctype html\b|html[\s>]|head[\s>]|!--)/i,
    () => ({ what: 'an HTML page', remedy: again }),
  ],
  [
    /^(?:Entry not found|Repository not found|Invalid username or password|Access to model .{1,200} is restricted)/,
    ([message]) => ({ what: `the message ${JSON.stringify(message)} of a server`, remedy: again }),
  ],
];

/** What a file is by its first bytes, if it cannot be a model's file; undefined otherwise. */
export function impostorOf(start: Uint8Array): Impostor | undefined {
  // The patterns are ASCII; a byte order mark in front is skipped.
  const text = String.fromCharCode(...start.subarray(0, IMPOSTOR_BYTES)).replace(/^(?:\u00ef\u00bb\u00bf)?\s*/, '');
  for (const [form, describe] of forms) {
    const found = form.exec(text);
    if (found) return describe(found, text);
  }
  return undefined;
}

/** Returns the source, or closes it and throws. @throws FormatError NotTheFile for a pointer, a page or a message */
export async function refuseImpostor(source: ByteSource): Promise<ByteSource> {
  try {
    const impostor = impostorOf(await source.read(0, Math.min(IMPOSTOR_BYTES, source.byteLength)));
    if (impostor) throw notTheFile(source.name, impostor);
    return source;
  } catch (error) {
    await source.dispose();
    throw error;
  }
}

export function notTheFile(name: string, { what, remedy }: Impostor): FormatError {
  return new FormatError('NotTheFile', name, `expected the file itself, found ${what}; ${remedy}`);
}
