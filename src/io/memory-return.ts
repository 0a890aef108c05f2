// Gives memory that nobody uses back to the system. After a burst of large requests or answers two things keep it: V8 collects dead
// buffers only when more are made, and the C library keeps what was freed for whoever asks next. Gigabytes stay so for hours, which a
// container's memory limit does not wait for. So the anonymous memory of the process is looked at, and when it is far more than what was
// left the last time, and does not grow any more, a collection is asked for, then malloc_trim(3). The first stops the core for some
// 50 ms, the second for 0.1 to 0.25 s a gigabyte that is given back: so only after bursts, when they are over.
//
//   watching ── far more, and still ──▶ collected ── next look: V8 has freed, trim ──▶ trimmed ── next look: what is left? ──▶ watching
//
// malloc_trim is glibc's; it is called through node:ffi (init-daemon.ts says what that is). Without it, or without --expose-gc
// (bin/keelson has it), nothing of this is done.

import { processReader } from './process-info.ts';

export interface MemoryReturnParts {
  /** Not asked for below so much more than was left. */
  readonly worthBytes: number;
  /** Anonymous memory of the process. */
  readonly residentBytes: () => number;
  readonly collect: () => void;
  readonly trim: () => void;
}

export class MemoryReturn {
  private readonly parts: MemoryReturnParts;
  private state: 'watching' | 'collected' | 'trimmed' = 'watching';
  private leftBytes = 0;
  private lastBytes = 0;

  constructor(parts: MemoryReturnParts) {
    this.parts = parts;
  }

  /** To be called every few seconds. */
  look(): void {
    const { parts } = this;
    if (this.state === 'collected') {
      this.state = 'trimmed';
      parts.trim();
      return;
    }
    const bytes = parts.residentBytes();
    const grows = bytes > this.lastBytes + parts.worthBytes / 16;
    this.lastBytes = bytes;
    if (this.state === 'trimmed') {
      this.state = 'watching';
      this.leftBytes = bytes;
    } else if (!grows && bytes > 2 * this.leftBytes + parts.worthBytes) {
      this.state = 'collected';
      parts.collect();
    }
  }
}

/** For this process; null where it cannot be done. */
export function memoryReturnOfProcess(worthBytes: number): MemoryReturn | null {
  const { gc } = globalThis;
  const trim = mallocTrim();
  if (gc === undefined || trim === null || residentBytes() < 0) return null;
  return new MemoryReturn({ worthBytes, residentBytes, collect: () => void gc(), trim });
}

function residentBytes(): number {
  const line = /^RssAnon:\s+(\d+) kB$/m.exec(processReader.readText('/proc/self/status') ?? '');
  return line === null ? -1 : Number(line[1]) * 1024;
}

function mallocTrim(): (() => void) | null {
  const ffi = process.getBuiltinModule('node:ffi') as typeof import('node:ffi') | undefined;
  if (ffi === undefined) return null;
  try {
    const libc = ffi.dlopen(null, { malloc_trim: { arguments: ['u64'], return: 'i32' } });
    return () => void libc.functions.malloc_trim(0n);
  } catch {
    // Another C library than glibc.
    return null;
  }
}
