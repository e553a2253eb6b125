/** The report of `lanewise bench --kernels`: kernels beside the roofs of the same run. */
import type { Cell, Chart, Report, Section } from '../report/report.ts';
import { arithmeticRoof, type KernelTime } from './kernel-times.ts';
import type { TurnRoofs } from './saved.ts';

/** Kinds of steps below this share of the time are left out of the plot. */
const SMALL = 0.002;

/** A kernel on the roofline. */
export interface KernelPlace {
  readonly bytesPerSecond: number;
  /** Undefined where there are no operations, or none are counted. */
  readonly operationsPerSecond: number | undefined;
  /** Operations per byte. */
  readonly intensity: number | undefined;
  /** What limits a kernel of this intensity, and which share of that it reaches. */
  readonly limit: 'memory' | 'arithmetic';
  readonly ofRoof: number;
}

/** @param roofs rates of the machine, measured in the same run */
export function placeOf({ kernel, ms, bytes, operations }: KernelTime, roofs: TurnRoofs): KernelPlace {
  const bytesPerSecond = bytes / (ms / 1000);
  const memory = bytesPerSecond / roofs.read;
  if (!operations)
    return { bytesPerSecond, operationsPerSecond: undefined, intensity: undefined, limit: 'memory', ofRoof: memory };
  const operationsPerSecond = operations / (ms / 1000);
  const arithmetic = operationsPerSecond / roofs[arithmeticRoof(kernel)];
  // The lower roof is the one of which the kernel uses the larger share.
  const limit = memory > arithmetic ? 'memory' : 'arithmetic';
  return {
    ...{ bytesPerSecond, operationsPerSecond, intensity: operations / bytes },
    ...{ limit, ofRoof: Math.max(memory, arithmetic) },
  };
}

export interface KernelReportInput {
  readonly command: string;
  readonly machine: Report['machine'];
  readonly models: readonly { readonly policy: string; readonly kernels: readonly KernelTime[] }[];
  readonly roofs: TurnRoofs;
}

export function kernelReport({ command, machine, models, roofs }: KernelReportInput): Report {
  const rate = (value: number, unit: string): string => `${(value / 1e9).toFixed(1)} ${unit}`;
  return {
    title: 'Kernels and their roofs',
    command,
    machine: [
      ...machine,
      ['Memory read', rate(roofs.read, 'GB/s')],
      ['Tile loop F32', rate(roofs.f32, 'GOP/s')],
      ['Tile loop int8', rate(roofs.q8, 'GOP/s')],
    ],
    sections: [
      {
        text:
          'Bytes are those that a kernel must read and write once: weights, keys and values, rows. Processor caches serve part ' +
          'of them, so that a kernel can lie above the memory roof; products of 4-bit weights take fewer instructions than the ' +
          'int8 tile and can lie above it. Operations are multiplications and additions; where functions such as exp take most ' +
          'of the time, none are counted.',
      },
      ...models.flatMap(({ policy, kernels }) => sectionsOf(policy, kernels, roofs)),
    ],
  };
}

function sectionsOf(policy: string, kernels: readonly KernelTime[], roofs: TurnRoofs): Section[] {
  const rows = kernels.map((time): Cell[] => {
    const { bytesPerSecond, operationsPerSecond, intensity, limit, ofRoof } = placeOf(time, roofs);
    const billions = (value: number | undefined): Cell => (value === undefined ? null : value / 1e9);
    return [
      ...[
        time.work,
        time.kernel,
        time.ms,
        `${(time.share * 100).toFixed(1)} %`,
        time.bytes / 1e6,
        billions(bytesPerSecond),
      ],
      time.operations === undefined ? null : time.operations / 1e6,
      ...[billions(operationsPerSecond), intensity ?? null, limit, `${(ofRoof * 100).toFixed(0)} %`],
    ];
  });
  const right = (name: string, unit?: string) => ({
    name,
    ...(unit === undefined ? {} : { unit }),
    align: 'right' as const,
  });
  const columns = [
    { name: 'Work' },
    { name: 'Kernel' },
    right('Time', 'ms'),
    right('Share'),
    right('Bytes', 'MB'),
    right('Rate', 'GB/s'),
    right('Operations', 'millions'),
    right('Rate', 'GOP/s'),
    right('Operations per byte'),
    { name: 'Limit' },
    right('Of the roof'),
  ];
  return [{ title: `Kernels of ${policy}`, table: { columns, rows }, chart: rooflineOf(policy, kernels, roofs) }];
}

/** Operations per second over operations per byte, both logarithmic: memory is a slope, arithmetic are ceilings. */
export function rooflineOf(policy: string, kernels: readonly KernelTime[], roofs: TurnRoofs): Chart {
  const series = kernels.flatMap((time) => {
    const { intensity, operationsPerSecond } = placeOf(time, roofs);
    if (intensity === undefined || operationsPerSecond === undefined || time.share < SMALL) return [];
    return [{ name: `${time.work}: ${time.kernel}`, points: [{ x: intensity, y: operationsPerSecond / 1e9 }] }];
  });
  const found = series.flatMap(({ points }) => points.map(({ x }) => x));
  const from = Math.min(0.1, ...found.map((x) => x / 2));
  const to = Math.max(1000, ...found.map((x) => x * 2));
  const slope = (x: number): number => (x * roofs.read) / 1e9;
  /** A ceiling from where the memory slope reaches it. */
  const ceiling = (name: string, rate: number) => {
    const y = rate / 1e9;
    return {
      name,
      points: [
        { x: Math.min(rate / roofs.read, to), y },
        { x: to, y },
      ],
    };
  };
  const ridge = Math.min(to, Math.max(roofs.f32, roofs.q8) / roofs.read);
  return {
    kind: 'scatter',
    title: `Roofline of ${policy}`,
    x: { name: 'Operations per byte', scale: 'log' },
    y: { name: 'Operations', unit: 'GOP/s', scale: 'log' },
    series,
    lines: [
      {
        name: 'memory read',
        points: [
          { x: from, y: slope(from) },
          { x: ridge, y: slope(ridge) },
        ],
      },
      ceiling('tile loop F32', roofs.f32),
      ceiling('tile loop int8', roofs.q8),
    ],
  };
}
