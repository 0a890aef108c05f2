// Log lines as etcd's zap writes them: JSON with level, ts, caller, msg and fields in this order, or tab-separated console
// text. Not the writing itself: a sink (io/log-sink.ts) takes whole lines and never blocks for ever. Why not pino: zap's field
// order, its time format with microseconds and zone, its console form and its sampling would all be custom code over it.
//
// `caller` is a literal "folder/file.ts:line" given at each call: taking it from a stack costs microseconds.

import { logSampleEach, logSampleFirst, logSampleMessagesMax } from '../limits.ts';

export const logLevels = ['debug', 'info', 'warn', 'error', 'dpanic', 'panic', 'fatal'] as const;
export type LogLevel = (typeof logLevels)[number];

/** A field's value. Durations and ids are given as the text that etcd prints. */
export type LogValue = string | number | bigint | boolean | null | Error | readonly LogValue[] | LogFields;
export interface LogFields {
  readonly [key: string]: LogValue;
}

/** Where lines go, each with its newline. */
export interface LogSink {
  write(line: string): void;
  /** Tries to get everything out, for a bounded time. */
  flush(): void;
}

export interface LoggerOptions {
  readonly level: LogLevel;
  readonly format: 'json' | 'console';
  readonly sink: LogSink;
  /** Milliseconds since 1970, with the fraction that the clock has. */
  readonly now: () => number;
}

/** zap's names in any case, '' for info; null for another. */
export function parseLogLevel(text: string): LogLevel | null {
  if (text === '') return 'info';
  return logLevels.find((level) => level === text.toLowerCase()) ?? null;
}

export class Logger {
  readonly #options: LoggerOptions;
  readonly #levelIndex: number;
  readonly #name: string;
  readonly #sampler: Sampler;

  constructor(options: LoggerOptions, name: string = '', sampler: Sampler = new Sampler()) {
    this.#options = options;
    this.#levelIndex = logLevels.indexOf(options.level);
    this.#name = name;
    this.#sampler = sampler;
  }

  /** A logger whose lines carry `"logger":"name"`, as raft's and the backend's do in etcd. */
  named(name: string): Logger {
    return new Logger(this.#options, name, this.#sampler);
  }

  /** Whether a line of this level would be written: ask before computing costly fields. */
  enabled(level: LogLevel): boolean {
    return logLevels.indexOf(level) >= this.#levelIndex;
  }

  debug(caller: string, msg: string, fields?: LogFields): void {
    if (this.#levelIndex === 0) this.log('debug', caller, msg, fields);
  }
  info(caller: string, msg: string, fields?: LogFields): void {
    this.log('info', caller, msg, fields);
  }
  warn(caller: string, msg: string, fields?: LogFields): void {
    this.log('warn', caller, msg, fields);
  }
  error(caller: string, msg: string, fields?: LogFields): void {
    this.log('error', caller, msg, fields);
  }
  /** Only writes: who logs at this level ends the process after it. */
  fatal(caller: string, msg: string, fields?: LogFields): void {
    this.log('fatal', caller, msg, fields);
  }

  log(level: LogLevel, caller: string, msg: string, fields: LogFields = {}): void {
    if (!this.enabled(level)) return;
    const now = this.#options.now();
    if (!this.#sampler.passes(level, msg, now)) return;
    const time = formatLogTime(now);
    const line =
      this.#options.format === 'json'
        ? this.#json(level, time, caller, msg, fields)
        : this.#console(level, time, caller, msg, fields);
    this.#options.sink.write(line);
  }

  /** Ends a line that somebody else may have begun on the same output. */
  breakLine(): void {
    this.#options.sink.write('\n');
  }

  flush(): void {
    this.#options.sink.flush();
  }

  #json(level: LogLevel, time: string, caller: string, msg: string, fields: LogFields): string {
    const name = this.#name === '' ? '' : `"logger":${JSON.stringify(this.#name)},`;
    let line = `{"level":"${level}","ts":"${time}",${name}"caller":"${caller}","msg":${JSON.stringify(msg)}`;
    for (const key of Object.keys(fields)) line += `,${JSON.stringify(key)}:${encode(fields[key]!, ',', ':')}`;
    return `${line}}\n`;
  }

  #console(level: LogLevel, time: string, caller: string, msg: string, fields: LogFields): string {
    const name = this.#name === '' ? '' : `${this.#name}\t`;
    const keys = Object.keys(fields);
    const head = `${time}\t${level}\t${name}${caller}\t${msg}`;
    return keys.length === 0 ? `${head}\n` : `${head}\t${encode(fields, ', ', ': ')}\n`;
  }
}

function encode(value: LogValue, comma: string, colon: string): string {
  if (typeof value === 'bigint') return value.toString();
  if (typeof value === 'number' && !Number.isFinite(value)) return `"${value}"`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  if (value instanceof Error) return JSON.stringify(value.message);
  if (Array.isArray(value)) return `[${value.map((item: LogValue) => encode(item, comma, colon)).join(comma)}]`;
  const object = value as LogFields;
  const pairs = Object.keys(object).map((key) => JSON.stringify(key) + colon + encode(object[key]!, comma, colon));
  return `{${pairs.join(comma)}}`;
}

let cachedSecond: number = Number.NaN;
let cachedDate: string = '';
let cachedZone: string = '';

/** 2006-01-02T15:04:05.000000Z0700: local time with microseconds, "Z" in UTC, else "+0100". */
export function formatLogTime(epochMs: number): string {
  const second = Math.floor(epochMs / 1000);
  if (second !== cachedSecond) {
    const offsetMinutes = -new Date(epochMs).getTimezoneOffset();
    cachedDate = new Date(second * 1000 + offsetMinutes * 60_000).toISOString().slice(0, 19);
    cachedZone = offsetMinutes === 0 ? 'Z' : formatZone(offsetMinutes);
    cachedSecond = second;
  }
  const micros = Math.min(999_999, Math.floor((epochMs - second * 1000) * 1000));
  return `${cachedDate}.${String(micros).padStart(6, '0')}${cachedZone}`;
}

function formatZone(offsetMinutes: number): string {
  const size = Math.abs(offsetMinutes);
  const hours = String(Math.floor(size / 60)).padStart(2, '0');
  return `${offsetMinutes < 0 ? '-' : '+'}${hours}${String(size % 60).padStart(2, '0')}`;
}

/** zap's sampling: of one message at one level, the first hundred in a second and then one of each hundred. */
class Sampler {
  #second: number = Number.NaN;
  readonly #counts: Map<string, number> = new Map();

  passes(level: LogLevel, msg: string, now: number): boolean {
    const second = Math.floor(now / 1000);
    if (second !== this.#second) {
      this.#counts.clear();
      this.#second = second;
    }
    const key = level + msg;
    const count = (this.#counts.get(key) ?? 0) + 1;
    if (count === 1 && this.#counts.size >= logSampleMessagesMax) return true;
    this.#counts.set(key, count);
    return count <= logSampleFirst || (count - logSampleFirst) % logSampleEach === 0;
  }
}
