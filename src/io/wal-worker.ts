// The WAL thread: takes requests from shared memory in order, does each on the disk, says so. See wal-thread.ts for the
// protocol. It sleeps in Atomics.wait and never returns to its event loop before it stops or fails.

import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { assert } from '../base/assert.ts';
import { armFailpoints } from '../base/failpoint.ts';
import { FatalError } from '../base/fatal.ts';
import { walRequestsMax } from '../storage-limits.ts';
import { processFailpointControl } from './failpoint-http.ts';
import { nodeDisk } from './file.ts';
import { reservedDisk } from './reserved-disk.ts';
import { Control, RequestKind, Slot, type WalPayload, type WalWorkerData, type WalWorkerError } from './wal-thread.ts';
import { WalFile, type WalRotation, walFatal } from './wal-writer.ts';

const { control, requests, timings, payloads, errors, path, fsync, failpoints }: WalWorkerData = workerData;
if (failpoints !== null) armFailpoints(processFailpointControl, failpoints);
const buffers: Buffer[] = [Buffer.alloc(0), Buffer.alloc(0)];
const generations = [0, 0];

function nextPayload(): WalPayload {
  const received = receiveMessageOnPort(payloads);
  assert(received !== undefined, 'the payload of a WAL request was sent before it');
  return received.message;
}

function takeBuffer(payload: WalPayload): boolean {
  if (payload.kind !== 'buffer') return false;
  buffers[payload.buffer] = Buffer.from(payload.memory);
  generations[payload.buffer] = payload.generation;
  return true;
}

/** The next payload that is not a buffer; new buffers on the way are taken. */
function nextOrder(): WalPayload {
  let payload = nextPayload();
  while (takeBuffer(payload)) payload = nextPayload();
  return payload;
}

function perform(file: WalFile, sequence: number): void {
  const index = (sequence >>> 0) % walRequestsMax;
  const slot = index * Slot.words;
  const kind = requests[slot + Slot.kind];
  if (kind === RequestKind.remove) {
    const order = nextOrder();
    assert(order.kind === 'remove', 'a removal comes with its paths');
    file.remove(order.removal);
    return;
  }
  let rotation: WalRotation | null = null;
  if (kind === RequestKind.rotate) {
    const order = nextOrder();
    assert(order.kind === 'rotate', 'a rotation comes with its segment');
    rotation = order.rotation;
  }
  const buffer = requests[slot + Slot.buffer]!;
  while (generations[buffer] !== requests[slot + Slot.generation]) {
    assert(takeBuffer(nextPayload()), 'a new buffer was sent before its first write');
  }
  file.write(buffers[buffer]!, requests[slot + Slot.length]!, requests[slot + Slot.position]! >>> 0, rotation);
  timings[index * 2] = file.writeSeconds;
  timings[index * 2 + 1] = file.fsyncSeconds;
}

function complete(sequence: number): void {
  Atomics.store(control, Control.completed, sequence);
  Atomics.notify(control, Control.completed);
  if (Atomics.exchange(control, Control.wantMessage, 0) !== 0) parentPort!.postMessage(null);
}

function run(): void {
  const file = new WalFile(reservedDisk(nodeDisk, '/dev/null'), path, fsync);
  let sequence = 0;
  for (;;) {
    while (Atomics.load(control, Control.requested) === sequence) Atomics.wait(control, Control.requested, sequence);
    sequence = (sequence + 1) | 0;
    if (requests[((sequence >>> 0) % walRequestsMax) * Slot.words + Slot.kind] === RequestKind.stop) {
      file.close();
      complete(sequence);
      return;
    }
    perform(file, sequence);
    complete(sequence);
  }
}

try {
  run();
} catch (error) {
  const fatal = walFatal(error, `opening ${path}`);
  assert(fatal instanceof FatalError, 'the WAL thread fails by the disk or by a bug');
  const report: WalWorkerError = { exitCode: fatal.exitCode, message: fatal.message };
  errors.postMessage(report);
  Atomics.store(control, Control.failed, 1);
  Atomics.notify(control, Control.completed);
  parentPort!.postMessage(null);
}
payloads.close();
errors.close();
