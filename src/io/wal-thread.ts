// The WAL writer with a thread of its own (wal-worker.ts): the core hands a filled buffer over and goes on, or waits for it in
// a bounded Atomics.wait. A stalled disk therefore stalls the log only, never heartbeats or health answers.
//
// Shared memory, all of it written by one side only except wantMessage:
//   control  Int32Array  requested: sequence of the newest request (core) · completed: of the newest done (worker)
//                        wantMessage: the core has stopped waiting, the worker posts a message when it next completes
//                        failed: an error is in the error port (worker)
//   requests Int32Array  walRequestsMax slots of: kind, buffer 0|1, generation of that buffer, length, position
//   timings  Float64Array  for each slot: seconds of write, seconds of fdatasync (worker)
// Buffers are two SharedArrayBuffers; a grown one, a rotation and a removal travel as messages, which the worker takes with
// receiveMessageOnPort when the request that needs them comes up. Sequences wrap at 2^32 in shared memory, not outside.
//
// No lost wake-up: the core sets wantMessage and then looks at completed again; the worker sets completed and then takes
// wantMessage. Both sequentially consistent, so at least one of them sees the other.

import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import { assert } from '../base/assert.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { walBufferBytes, walBufferBytesKeep, walRequestsMax } from '../storage-limits.ts';
import {
  grownBufferBytes,
  type WalObserver,
  type WalRemoval,
  type WalRotation,
  type WalWriter,
  type WalWriterConfig,
  type WalWriterFactory,
} from './wal-writer.ts';
import { ensureWorkingDirectory } from './working-directory.ts';

export const Control = { requested: 0, completed: 1, wantMessage: 2, failed: 3, words: 4 } as const;
export const Slot = { kind: 0, buffer: 1, generation: 2, length: 3, position: 4, words: 5 } as const;
export const RequestKind = { write: 1, rotate: 2, remove: 3, stop: 4 } as const;

/** What the worker is started with. */
export interface WalWorkerData {
  readonly control: Int32Array;
  readonly requests: Int32Array;
  readonly timings: Float64Array;
  readonly payloads: MessagePort;
  readonly errors: MessagePort;
  readonly path: string;
  readonly fsync: boolean;
  /** Shared memory of armed failpoints. */
  readonly failpoints: SharedArrayBuffer | null;
}

/** Core to worker, in the order of the requests that need them. */
export type WalPayload =
  | { readonly kind: 'buffer'; readonly buffer: 0 | 1; readonly generation: number; readonly memory: SharedArrayBuffer }
  | { readonly kind: 'rotate'; readonly rotation: WalRotation }
  | { readonly kind: 'remove'; readonly removal: WalRemoval };

/** Worker to core, when it has stopped. */
export interface WalWorkerError {
  readonly exitCode: ExitCode;
  readonly message: string;
}

const stopTimeoutMs = 30_000;

function int32(words: number): Int32Array {
  return new Int32Array(new SharedArrayBuffer(words * 4));
}

class ThreadedWalWriter implements WalWriter {
  readonly #control = int32(Control.words);
  readonly #requests = int32(Slot.words * walRequestsMax);
  readonly #timings = new Float64Array(new SharedArrayBuffer(walRequestsMax * 2 * 8));
  readonly #buffers: [Buffer, Buffer];
  readonly #generations: [number, number] = [0, 0];
  readonly #payloads: MessagePort;
  readonly #errors: MessagePort;
  readonly #worker: Worker;
  readonly #observer: WalObserver;
  #filling: 0 | 1 = 0;
  #requested = 0;
  #completed = 0;
  /** Sequence of the newest write: the invariant is that the one before it is complete when it is handed over. */
  #written = 0;
  #failed: FatalError | null = null;
  #closed = false;

  constructor(config: WalWriterConfig, failpoints: SharedArrayBuffer | null) {
    this.#observer = config.observer;
    const payloads = new MessageChannel();
    const errors = new MessageChannel();
    this.#payloads = payloads.port1;
    this.#errors = errors.port1;
    const data: WalWorkerData = {
      control: this.#control,
      requests: this.#requests,
      timings: this.#timings,
      payloads: payloads.port2,
      errors: errors.port2,
      path: config.path,
      fsync: config.fsync,
      failpoints,
    };
    ensureWorkingDirectory();
    this.#worker = new Worker(new URL('./wal-worker.ts', import.meta.url), {
      name: 'wal',
      workerData: data,
      transferList: [payloads.port2, errors.port2],
      // It holds a few objects: small spaces keep its share of the process's memory small.
      // The process's own flags are not for a thread without a script of its own (`-e` would even stop it).
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 2 },
    });
    this.#worker.on('message', config.onWake);
    this.#worker.on('error', (error) => {
      this.#failed ??= new FatalError(ExitCode.bug, `wal: the WAL thread died: ${error}`, { cause: error });
      if (!this.#closed) config.onWake();
    });
    this.#buffers = [this.#allocate(0, walBufferBytes), this.#allocate(1, walBufferBytes)];
  }

  #allocate(buffer: 0 | 1, bytes: number): Buffer {
    const memory = new SharedArrayBuffer(bytes);
    this.#generations[buffer]++;
    this.#send({ kind: 'buffer', buffer, generation: this.#generations[buffer], memory });
    return Buffer.from(memory);
  }

  #send(payload: WalPayload): void {
    this.#payloads.postMessage(payload);
  }

  get buffer(): Buffer {
    return this.#buffers[this.#filling];
  }

  reserve(used: number, bytes: number): void {
    const current = this.#buffers[this.#filling];
    if (used + bytes <= current.length) return;
    const grown = this.#allocate(this.#filling, grownBufferBytes(current.length, used + bytes));
    current.copy(grown, 0, 0, used);
    this.#buffers[this.#filling] = grown;
  }

  write(length: number, position: number, rotation: WalRotation | null): number {
    assert(this.completed() >= this.#written, 'one WAL write in flight');
    assert(length <= this.buffer.length && position >= 0, 'a WAL write lies in its buffer');
    if (rotation !== null) this.#send({ kind: 'rotate', rotation });
    this.#written = this.#request(rotation === null ? RequestKind.write : RequestKind.rotate, length, position);
    this.#filling = this.#filling === 0 ? 1 : 0;
    const next = this.#filling;
    if (this.#buffers[next].length > walBufferBytesKeep) this.#buffers[next] = this.#allocate(next, walBufferBytes);
    return this.#written;
  }

  remove(removal: WalRemoval): number {
    if (this.#failed !== null) throw this.#failed;
    this.#send({ kind: 'remove', removal });
    return this.#request(RequestKind.remove, 0, 0);
  }

  #request(kind: number, length: number, position: number): number {
    assert(this.#requested - this.#completed < walRequestsMax, 'the WAL thread has room for a request');
    const sequence = ++this.#requested;
    const slot = (sequence % walRequestsMax) * Slot.words;
    const requests = this.#requests;
    requests[slot + Slot.kind] = kind;
    requests[slot + Slot.buffer] = this.#filling;
    requests[slot + Slot.generation] = this.#generations[this.#filling];
    requests[slot + Slot.length] = length;
    requests[slot + Slot.position] = position;
    Atomics.store(this.#control, Control.requested, sequence | 0);
    Atomics.notify(this.#control, Control.requested, 1);
    return sequence;
  }

  completed(): number {
    if (this.#failed !== null) throw this.#failed;
    const done = Atomics.load(this.#control, Control.completed);
    while ((this.#completed | 0) !== done) this.#complete(++this.#completed);
    if (Atomics.load(this.#control, Control.failed) !== 0) throw this.#fail();
    return this.#completed;
  }

  #complete(sequence: number): void {
    assert(sequence <= this.#requested, 'the WAL thread completes what was requested');
    const slot = sequence % walRequestsMax;
    const kind = this.#requests[slot * Slot.words + Slot.kind];
    if (kind !== RequestKind.write && kind !== RequestKind.rotate) return;
    this.#observer.write(this.#timings[slot * 2]!, this.#requests[slot * Slot.words + Slot.length]!);
    this.#observer.fsync(this.#timings[slot * 2 + 1]!);
  }

  #fail(): FatalError {
    const received = receiveMessageOnPort(this.#errors);
    assert(received !== undefined, 'a failed WAL thread says why');
    const error: WalWorkerError = received.message;
    this.#failed = new FatalError(error.exitCode, error.message);
    return this.#failed;
  }

  wait(sequence: number, timeoutMs: number): boolean {
    assert(sequence <= this.#requested, 'waits for something that was requested');
    const deadline = performance.now() + timeoutMs;
    while (this.completed() < sequence) {
      const left = deadline - performance.now();
      if (left > 0) {
        Atomics.wait(this.#control, Control.completed, this.#completed | 0, left);
        continue;
      }
      Atomics.store(this.#control, Control.wantMessage, 1);
      return this.completed() >= sequence;
    }
    return true;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#failed === null && Atomics.load(this.#control, Control.failed) === 0) {
      this.#awaitRoom();
      const sequence = this.#request(RequestKind.stop, 0, 0);
      if (!this.wait(sequence, stopTimeoutMs)) {
        throw new FatalError(ExitCode.walWrite, 'wal: the disk did not take the last writes in 30 s');
      }
    }
    this.#payloads.close();
    this.#errors.close();
    this.#worker.unref();
  }

  #awaitRoom(): void {
    if (this.#requested > this.completed()) this.wait(this.#requested, stopTimeoutMs);
  }
}

/** A factory of writers with a thread, on the real disk. */
export function threadedWriter(failpoints: SharedArrayBuffer | null = null): WalWriterFactory {
  return (config) => new ThreadedWalWriter(config, failpoints);
}
