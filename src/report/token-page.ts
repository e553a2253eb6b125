/** Renders a generated text as a page on which each token tells how it was chosen. */
import { plain } from './cells.ts';
import { tableHtml } from './html.ts';
import { escapeHtml, htmlPage } from './html-page.ts';
import type { Table } from './report.ts';
import { showTokens } from './token-script.ts';
import type { TokenPage } from './tokens.ts';

/** Smallest probability of each class of tokens: the page colours them. */
const classes = [0.5, 0.2, 0.05, 0.01, 0] as const;

const classOf = (probability: number): number => classes.findIndex((least) => probability >= least);

export function renderTokens(page: TokenPage): string {
  const { title, command, facts, prompt, times, tokens } = page;
  const text = (value: string): string => escapeHtml(plain(value));
  const percent = (share: number): number => Number((share * 100).toPrecision(3));
  const all: Table = {
    columns: [
      { name: 'Token', align: 'right' },
      { name: 'Text' },
      { name: 'Id' },
      { name: 'Probability', unit: '%' },
      { name: 'Rank' },
      { name: 'Entropy', unit: 'bits' },
      { name: 'Time', unit: 'ms' },
    ],
    rows: tokens.map((token, i) => [
      i + 1,
      token.label,
      token.id,
      percent(token.probability),
      token.rank,
      token.entropy,
      token.ms,
    ]),
  };
  const legend = classes.map((least, i) => {
    const range = i === 0 ? `${least * 100} % and more` : `${least * 100} to ${classes[i - 1]! * 100} %`;
    return `<span class="class-${i}">${range}</span>`;
  });
  const buttons = tokens.map(
    ({ text: words, label, probability }, i) =>
      `<button type="button" class="class-${classOf(probability)}" data-token="${i}" tabindex="${i === 0 ? 0 : -1}" aria-label="${text(label)}, ${percent(probability)} %">${visible(words, label)}</button>`,
  );
  const body = `<h1>${text(title)}</h1>
<pre tabindex="0" aria-label="Command"><code>${text(command)}</code></pre>
${tableHtml({ columns: [{ name: 'Run' }, { name: 'Value' }], rows: facts }, 'Run')}
<h2>Text</h2>
<p>Colours: probability by the model. ${legend.join(' ')}</p>
<p id="how">Arrow keys go from token to token; a click chooses one.</p>
<div class="text" role="toolbar" aria-label="Tokens" aria-describedby="how"><span class="prompt">${escapeHtml(prompt)}</span>${buttons.join('')}</div>
<section id="token" aria-live="polite" aria-label="The chosen token"></section>
<h2>Time</h2>
${tableHtml(times, 'Time by phase')}
<details><summary>All tokens as a table</summary>
${tableHtml(all, 'All tokens')}
</details>`;
  return htmlPage({
    title,
    body,
    styles: [style],
    scripts: [`(${showTokens.toString()})();`],
    data: { tokens },
  });
}

/** Text of a button: line breaks stay, a token without text of its own shows its label. */
const visible = (words: string, label: string): string => {
  if (words === '') return `<i>${escapeHtml(plain(label))}</i>`;
  return escapeHtml(words.replace(/[^\n]+/g, plain)).replaceAll('\n', '↵\n');
};

const style = `
main > .scroll:first-of-type td { white-space: normal; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 2; background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 0.7rem 1rem; }
.prompt { color: var(--faint); }
button { font: inherit; color: inherit; border: 0; border-radius: 3px; margin: 0 1px 0 0; padding: 0.1rem 0; white-space: pre-wrap; cursor: pointer; background: none; }
button[aria-pressed="true"] { outline: 2px solid var(--text); }
.class-0 { background: color-mix(in srgb, var(--series-2) 22%, transparent); }
.class-1 { background: color-mix(in srgb, var(--series-6) 30%, transparent); }
.class-2 { background: color-mix(in srgb, var(--series-5) 34%, transparent); }
.class-3 { background: color-mix(in srgb, var(--series-1) 40%, transparent); }
.class-4 { background: color-mix(in srgb, var(--bad) 48%, transparent); }
span[class^="class-"] { padding: 0.1rem 0.5rem; border-radius: 3px; }
#token { min-height: 22rem; margin-top: 1rem; }
#token h3 { margin: 0.4rem 0; }
.chosen th, .chosen td { font-weight: 700; background: var(--panel); }
`;
