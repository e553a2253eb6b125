/**
 * The script of a page. Its source is put into the page as text, after chart.js: the function must refer to nothing outside
 * itself.
 */
import type { ActiveElement, Chart as ChartType, Plugin, TooltipItem } from 'chart.js';
import type { ChartSettings, Dataset } from './chart-settings.ts';

export function drawCharts(): void {
  const { Chart } = globalThis as unknown as { Chart: typeof ChartType };
  const data = document.getElementById('charts')?.textContent ?? '[]';
  const charts = JSON.parse(data) as readonly ChartSettings[];
  const pointStyles = ['circle', 'rect', 'triangle', 'rectRot', 'crossRot', 'star', 'cross', 'dash'];
  const drawn: ChartType[] = [];

  const number = (value: number): string =>
    new Intl.NumberFormat('en', { maximumSignificantDigits: Number.isInteger(value) ? 15 : 4 }).format(value);

  const setOf = (chart: ChartType, index: number): Dataset => chart.data.datasets[index] as unknown as Dataset;

  function colorsNow(): { text: string; faint: string; grid: string; series: string[] } {
    const style = getComputedStyle(document.documentElement);
    const value = (name: string): string => style.getPropertyValue(name).trim();
    const series = Array.from({ length: 8 }, (_, i) => value(`--series-${i}`));
    return { text: value('--text'), faint: value('--faint'), grid: value('--line'), series };
  }

  /** Error bars, and straight reference lines from edge to edge. */
  const marks: Plugin = {
    id: 'marks',
    afterDatasetsDraw(chart) {
      const { ctx, chartArea: area, scales } = chart;
      const { text, faint } = colorsNow();
      ctx.save();
      ctx.beginPath();
      ctx.rect(area.left, area.top, area.width, area.height);
      ctx.clip();
      for (const meta of chart.getSortedVisibleDatasetMetas()) {
        const set = setOf(chart, meta.index);
        const line = set.reference;
        ctx.beginPath();
        if (line !== undefined && 'y' in line) {
          const y = scales.y!.getPixelForValue(line.y);
          ctx.moveTo(area.left, y);
          ctx.lineTo(area.right, y);
        } else if (line !== undefined && 'x' in line) {
          const x = scales.x!.getPixelForValue(line.x);
          ctx.moveTo(x, area.top);
          ctx.lineTo(x, area.bottom);
        }
        if (line !== undefined) {
          ctx.setLineDash([6, 4]);
          ctx.strokeStyle = faint;
        } else {
          ctx.setLineDash([]);
          ctx.strokeStyle = text;
        }
        if (line === undefined)
          for (const [index, { low, high }] of set.data.entries()) {
            const element = meta.data[index];
            if (element === undefined || low === undefined || high === undefined) continue;
            const bottom = scales.y!.getPixelForValue(low);
            const [top, x] = [scales.y!.getPixelForValue(high), element.x];
            // A lower end up to 0 is below every logarithmic axis.
            const end = Number.isFinite(bottom) ? bottom : area.bottom;
            ctx.moveTo(x, end);
            ctx.lineTo(x, top);
            for (const y of [end, top]) {
              ctx.moveTo(x - 4, y);
              ctx.lineTo(x + 4, y);
            }
          }
        ctx.lineWidth = 1.5;
        ctx.stroke();
      }
      ctx.restore();
    },
  };

  function pointText(set: Dataset, index: number, unit: string): string {
    const { x, y, low, high, note } = set.data[index]!;
    const interval = low === undefined || high === undefined ? '' : ` (${number(low)} to ${number(high)})`;
    const place = typeof x === 'number' ? number(x) : x;
    return `${set.label}, ${place}: ${number(y)}${interval} ${unit}${note === undefined ? '' : `, ${note}`}`;
  }

  function create(canvas: HTMLCanvasElement, { type, title, unit, x, y, datasets }: ChartSettings): ChartType {
    const { text, faint, grid, series } = colorsNow();
    const colored = datasets.map((set, index) => {
      const color = set.reference ? faint : series[index % series.length]!;
      return {
        ...set,
        borderColor: color,
        backgroundColor: color,
        borderWidth: set.type === 'bar' ? 0 : 2,
        borderDash: set.reference ? [6, 4] : [],
        pointRadius: set.reference ? 0 : 4,
        pointHoverRadius: set.reference ? 0 : 6,
        pointStyle: set.reference ? 'line' : set.type === 'bar' ? 'rect' : pointStyles[index % pointStyles.length],
      };
    });
    const scale = (axis: ChartSettings['x']) => ({
      ...axis,
      title: { ...axis.title, color: text },
      ticks: { color: text },
      grid: { color: grid },
      border: { color: faint },
    });
    const label = ({ datasetIndex, dataIndex, chart }: TooltipItem<'line'>): string =>
      pointText(setOf(chart, datasetIndex), dataIndex, unit);
    const options = {
      animation: false,
      responsive: true,
      maintainAspectRatio: false,
      locale: 'en',
      interaction: { mode: 'nearest', intersect: false },
      scales: { x: scale(x), y: scale(y) },
      plugins: {
        title: { display: true, text: title, color: text },
        legend: {
          display: datasets.length > 1,
          labels: { color: text, usePointStyle: true, pointStyleWidth: 14, boxHeight: 7 },
        },
        tooltip: {
          filter: ({ datasetIndex }: TooltipItem<'line'>) => datasets[datasetIndex]!.reference === undefined,
          callbacks: { title: () => '', label },
        },
      },
    };
    return new Chart(canvas, { type, data: { datasets: colored }, options, plugins: [marks] } as never);
  }

  /** Arrow keys select a point: left and right within a series, up and down between series; Escape ends it. */
  function withKeys(canvas: HTMLCanvasElement, at: number): void {
    const spoken = document.getElementById(`${canvas.id}-spoken`);
    const { datasets, unit } = charts[at]!;
    const sets = datasets.flatMap((set, index) => (set.reference || set.data.length === 0 ? [] : [index]));
    let [series, point] = [0, -1];
    const show = (active: ActiveElement[]): void => {
      const chart = drawn[at]!;
      chart.setActiveElements(active);
      chart.tooltip?.setActiveElements(active, { x: 0, y: 0 });
      chart.update('none');
    };
    const clear = (): void => {
      [series, point] = [0, -1];
      show([]);
    };
    canvas.addEventListener('blur', clear);
    canvas.addEventListener('keydown', (event) => {
      if (sets.length === 0) return;
      if (event.key === 'Escape') return clear();
      if (event.key === 'ArrowRight') point++;
      else if (event.key === 'ArrowLeft') point--;
      else if (event.key === 'ArrowDown') series++;
      else if (event.key === 'ArrowUp') series--;
      else return;
      event.preventDefault();
      series = Math.min(Math.max(series, 0), sets.length - 1);
      const datasetIndex = sets[series]!;
      const set = datasets[datasetIndex]!;
      point = Math.min(Math.max(point, 0), set.data.length - 1);
      show([{ datasetIndex, index: point } as ActiveElement]);
      if (spoken) spoken.textContent = pointText(set, point, unit);
    });
  }

  const canvases = [...document.querySelectorAll<HTMLCanvasElement>('canvas[data-chart]')];
  const drawAll = (): void => {
    for (const canvas of canvases) {
      const at = Number(canvas.dataset.chart);
      drawn[at]?.destroy();
      drawn[at] = create(canvas, charts[at]!);
    }
  };
  drawAll();
  for (const canvas of canvases) withKeys(canvas, Number(canvas.dataset.chart));
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll);
}
