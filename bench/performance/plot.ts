/** Plots bars and roofs as SVG, with dark text on its own light background, so that it is readable on any page. */

export interface Bar {
  /** Bars of a group are drawn together, under its name. */
  readonly group: string;
  readonly label: string;
  readonly value: number;
  /** Quartiles. */
  readonly low: number;
  readonly high: number;
  /** The machine's limit, measured in the same turns. */
  readonly roof: number;
}

export interface Plot {
  readonly title: string;
  /** Meaning of the bars and their frames. */
  readonly caption: string;
  readonly unit: string;
  readonly bars: readonly Bar[];
}

const colors = {
  ground: '#ffffff',
  text: '#1f2328',
  faint: '#59636e',
  line: '#d1d9e0',
  track: '#eaeef2',
  bar: '#0969da',
};
const [WIDTH, LEFT, RIGHT, TOP, BOTTOM] = [800, 76, 190, 72, 52];
const [ROW, THICK, HEAD] = [24, 14, 26];

const escaped = (text: string): string => text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);

/** Distance of ticks: 1, 2 or 5 times a power of ten, about a sixth of `most`. */
function tickStep(most: number): number {
  const power = 10 ** Math.floor(Math.log10(most / 6));
  return [1, 2, 5, 10].map((n) => n * power).find((step) => most / step <= 8)!;
}

export function drawPlot({ title, caption, unit, bars }: Plot): string {
  const groups = [...new Set(bars.map(({ group }) => group))];
  const most = Math.max(...bars.flatMap(({ value, high, roof }) => [value, high, roof])) * 1.02;
  const right = WIDTH - RIGHT;
  const x = (value: number): number => round(LEFT + (value / most) * (right - LEFT));
  const bottom = TOP + bars.length * ROW + groups.length * HEAD;
  const step = tickStep(most);
  const ticks = Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => round(i * step));
  const lines = [
    text(20, 28, title, { size: 17, weight: 600 }),
    text(20, 50, caption, { size: 12, color: colors.faint }),
    ...ticks.flatMap((tick) => [
      `<line x1="${x(tick)}" y1="${TOP}" x2="${x(tick)}" y2="${bottom}" stroke="${colors.line}"/>`,
      text(x(tick), bottom + 18, `${tick}`, { anchor: 'middle', color: colors.faint }),
    ]),
    text((LEFT + right) / 2, bottom + 40, unit, { anchor: 'middle', color: colors.faint }),
  ];
  let y = TOP;
  for (const group of groups) {
    lines.push(text(20, y + HEAD - 7, group, { weight: 600 }));
    y += HEAD;
    for (const bar of bars) {
      if (bar.group !== group) continue;
      const [top, middle] = [y + (ROW - THICK) / 2, y + ROW / 2];
      const rectangle = (to: number, look: string): string =>
        `<rect x="${LEFT}" y="${top}" width="${round(x(to) - LEFT)}" height="${THICK}" ${look}/>`;
      lines.push(
        rectangle(bar.roof, `fill="${colors.track}"`),
        rectangle(bar.value, `fill="${colors.bar}"`),
        // Drawn last, because a bar may be longer than its roof.
        rectangle(bar.roof, `fill="none" stroke="${colors.faint}"`),
        `<path d="M${x(bar.low)} ${middle}H${x(bar.high)}" stroke="${colors.text}" stroke-width="2"/>`,
        text(LEFT - 8, middle + 4, bar.label, { anchor: 'end' }),
        text(right + 10, middle + 4, `${figure(bar.value)} of ${figure(bar.roof)} ${unit}, ${percent(bar)}`, {}),
      );
      y += ROW;
    }
  }
  const height = bottom + BOTTOM;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="system-ui, sans-serif" role="img">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${WIDTH}" height="${height}" fill="${colors.ground}"/>`,
    ...lines,
    '</svg>\n',
  ].join('\n');
}

interface Look {
  readonly size?: number;
  readonly weight?: number;
  readonly color?: string;
  readonly anchor?: 'start' | 'middle' | 'end';
}

const text = (x: number, y: number, content: string, look: Look): string => {
  const { size = 12, weight = 400, color = colors.text, anchor = 'start' } = look;
  return `<text x="${x}" y="${y}" font-size="${size}" font-weight="${weight}" fill="${color}" text-anchor="${anchor}">${escaped(content)}</text>`;
};

const round = (value: number): number => Math.round(value * 100) / 100;
const figure = (value: number): string => value.toFixed(value < 100 ? 1 : 0);
const percent = ({ value, roof }: Bar): string => `${((value / roof) * 100).toFixed(0)} %`;
