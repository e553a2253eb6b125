/** Describes the machine and the versions of a measurement, for reports. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem, type } from 'node:os';
import { median } from './statistics.ts';

/** Read when the process starts, because its own work counts later. */
const loadAtStart = loadavg()[0]!;

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memory_bytes: number;
  readonly os: string;
  readonly node: string;
  readonly lanewise: string;
  readonly date: string;
  /** Processes that wanted a core in the minute before the start; 0 on Windows, which does not count them. */
  readonly load: number;
}

export function describeMachine(date = new Date()): Machine {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memory_bytes: totalmem(),
    os: `${type()} ${release()}, ${process.arch}`,
    node: process.version,
    lanewise: version,
    date: date.toISOString(),
    load: loadAtStart,
  };
}

export interface MachineUse {
  readonly threads: number;
  readonly vectorBits: number | undefined;
  /** Bytes per second, measured in the same run. */
  readonly read: readonly number[];
}

/** The rows of a report's machine. */
export function machineRows(machine: Machine, { threads, vectorBits, read }: MachineUse): [string, string][] {
  const rates = read.map((rate) => (rate / 1e9).toFixed(1)).sort((a, b) => Number(a) - Number(b));
  const extent = rates.length > 1 ? ` (${rates[0]} to ${rates.at(-1)} in ${rates.length} measurements)` : '';
  return [
    ['Processor', machine.cpu],
    ['Cores, threads', `${machine.cores}, ${threads}`],
    ['Vectors', vectorBits === undefined ? 'none' : `${vectorBits} bits`],
    ['Memory', `${(machine.memory_bytes / 2 ** 30).toFixed(1)} GiB`],
    ...(read.length > 0
      ? [['Memory read rate', `${(median(read) / 1e9).toFixed(1)} GB/s${extent}`] as [string, string]]
      : []),
    [
      'Other work at the start',
      machine.load < 0.5 ? 'none' : `load ${machine.load.toFixed(1)} on ${machine.cores} cores`,
    ],
    ['System', machine.os],
    ['Node, Lanewise', `${machine.node}, ${machine.lanewise}`],
    ['Date', machine.date],
  ];
}
