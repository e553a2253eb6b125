/** A self-contained HTML page: it loads nothing, and runs the given scripts only. */
import { createHash } from 'node:crypto';
import { plain } from './cells.ts';

export interface PageParts {
  readonly title: string;
  /** HTML of the main part. */
  readonly body: string;
  /** Style sheets and scripts, as text. They must not contain carriage returns. */
  readonly styles?: readonly string[];
  readonly scripts?: readonly string[];
  /** Data for scripts, by the id of its element. */
  readonly data?: Readonly<Record<string, unknown>>;
}

export const escapeHtml = (text: string): string =>
  text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

const hashOf = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

/** `</script` within the text of a script, where it can only be part of a string, would end the element. */
const scriptText = (text: string): string => text.replace(/<(?=\/script|script|!--)/gi, '\\x3c');

export function htmlPage({ title, body, styles = [], scripts = [], data = {} }: PageParts): string {
  const sheet = [baseStyle, ...styles].join('\n');
  const texts = scripts.map(scriptText);
  // The hashes allow the texts below and no other.
  const policy = [
    "default-src 'none'",
    `style-src ${hashOf(sheet)}`,
    `script-src ${texts.length > 0 ? texts.map(hashOf).join(' ') : "'none'"}`,
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; ');
  const json = Object.entries(data).map(
    ([id, value]) =>
      `<script type="application/json" id="${escapeHtml(id)}">${JSON.stringify(value).replaceAll('<', '\\u003c')}</script>\n`,
  );
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>${escapeHtml(plain(title))}</title>
<style>${sheet}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<main id="main" tabindex="-1">
${body}
</main>
${json.join('')}${texts.map((text) => `<script>${text}</script>\n`).join('')}</body>
</html>
`;
}

const baseStyle = `
:root {
  color-scheme: light dark;
  --back: #ffffff; --panel: #f6f8fa; --text: #1f2328; --faint: #59636e; --line: #d1d9e0; --accent: #0969da;
  --good: #1a7f37; --bad: #cf222e;
  --series-0: #0969da; --series-1: #bc4c00; --series-2: #1a7f37; --series-3: #8250df;
  --series-4: #bf3989; --series-5: #9a6700; --series-6: #0e7c86; --series-7: #57606a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #0d1117; --panel: #161b22; --text: #e6edf3; --faint: #9198a1; --line: #3d444d; --accent: #4493f8;
    --good: #3fb950; --bad: #f85149;
    --series-0: #58a6ff; --series-1: #f0883e; --series-2: #3fb950; --series-3: #bc8cff;
    --series-4: #f778ba; --series-5: #d29922; --series-6: #39c5cf; --series-7: #8b949e;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem; }
main:focus { outline: none; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.6rem; border-bottom: 1px solid var(--line); padding-bottom: 0.25rem; }
a { color: var(--accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 3px; }
.skip { position: absolute; left: -100vw; }
.skip:focus { left: 1rem; top: 0.5rem; background: var(--back); padding: 0.5rem 1rem; z-index: 1; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 0.7rem 1rem; overflow-x: auto; }
.scroll { overflow-x: auto; margin: 0.6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); padding-bottom: 0.3rem; white-space: nowrap; }
th, td { border: 1px solid var(--line); padding: 0.3rem 0.7rem; text-align: left; white-space: nowrap; }
thead th { background: var(--panel); }
tbody th { font-weight: 600; }
.right { text-align: right; }
figure { margin: 1rem 0; }
.canvas { position: relative; height: 24rem; }
summary { cursor: pointer; color: var(--faint); width: fit-content; }
@media print { .skip, summary { display: none; } }
`;
