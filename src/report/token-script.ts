/**
 * The script of the page of tokens. Its source is put into the page as text: the function must refer to nothing outside
 * itself.
 */
import type { PageToken } from './tokens.ts';

export function showTokens(): void {
  const tokens = JSON.parse(document.getElementById('tokens')?.textContent ?? '[]') as readonly PageToken[];
  const buttons = [...document.querySelectorAll<HTMLButtonElement>('button[data-token]')];
  const panel = document.getElementById('token')!;

  const number = (value: number): string =>
    new Intl.NumberFormat('en', { maximumSignificantDigits: Number.isInteger(value) ? 15 : 3 }).format(value);
  const percent = (share: number): string => `${number(share * 100)} %`;

  function element(name: string, text = '', parts: readonly HTMLElement[] = []): HTMLElement {
    const made = document.createElement(name);
    made.textContent = text;
    made.append(...parts);
    return made;
  }

  function table(
    name: string,
    head: readonly string[],
    rows: readonly (readonly string[])[],
    chosen = -1,
  ): HTMLElement {
    const lines = rows.map((row, index) => {
      const line = element(
        'tr',
        '',
        row.map((cell, i) => element(i === 0 ? 'th' : 'td', cell)),
      );
      if (index === chosen) line.className = 'chosen';
      return line;
    });
    const whole = element('table', '', [
      element('caption', name),
      element('thead', '', [
        element(
          'tr',
          '',
          head.map((cell) => element('th', cell)),
        ),
      ]),
      element('tbody', '', lines),
    ]);
    const scroll = element('div', '', [whole]);
    scroll.className = 'scroll';
    scroll.tabIndex = 0;
    scroll.setAttribute('role', 'region');
    scroll.setAttribute('aria-label', name);
    return scroll;
  }

  let shown = -1;

  function show(index: number): void {
    const token = tokens[index];
    if (token === undefined || index === shown) return;
    shown = index;
    buttons.forEach((button, i) => {
      button.tabIndex = i === index ? 0 : -1;
      button.setAttribute('aria-pressed', `${i === index}`);
    });
    const time = token.ms === null ? '' : `, ${number(token.ms)} ms`;
    const place = `Token ${index + 1} of ${tokens.length}: id ${token.id}, ${percent(token.probability)}, rank ${token.rank}${time}.`;
    const entropy = `Entropy ${number(token.entropy)} bits by the model, ${number(token.entropyAfter)} bits after sampling's cuts.`;
    const stages = token.stages.map(({ name, left, removed, removedProbability, changed }) => [
      name,
      number(removed),
      percent(removedProbability),
      number(changed),
      number(left),
    ]);
    panel.replaceChildren(
      element('h3', token.label),
      element('p', `${place} ${entropy}`),
      table(
        'What could have come',
        ['Token', 'Id', 'By the model', 'After the cuts', 'Removed by'],
        token.alternatives.map(({ label, id, before, after, removedBy }) => [
          label,
          `${id}`,
          percent(before),
          percent(after),
          removedBy,
        ]),
        token.alternatives.findIndex(({ id }) => id === token.id),
      ),
      stages.length > 0
        ? table(
            'What each stage did',
            ['Stage', 'Tokens removed', 'Their probability', 'Logits changed', 'Tokens left'],
            stages,
          )
        : element('p', 'No stage removed a token.'),
    );
  }

  buttons.forEach((button, index) => {
    button.addEventListener('click', () => show(index));
    button.addEventListener('focus', () => show(index));
    button.addEventListener('keydown', (event) => {
      const steps: Record<string, number> = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      const step = steps[event.key];
      const next = event.key === 'Home' ? 0 : event.key === 'End' ? buttons.length - 1 : index + (step ?? 0);
      if (next === index || buttons[next] === undefined) return;
      event.preventDefault();
      show(next);
      buttons[next].focus();
    });
  });
  show(0);
}
