// The end of the process when it must end: process.exit() waits for the other threads, and one that stands in the kernel or in
// native code (a write to a disk that stalls, LMDB's lock that an ended thread held) would hold it up for ever. What was
// acknowledged is durable by then, so there is nothing to wait for. libc's own _exit, by node:ffi; where that is missing, process.exit.

export function exitNow(code: number): never {
  const ffi = process.getBuiltinModule('node:ffi') as typeof import('node:ffi') | undefined;
  if (ffi !== undefined && process.platform === 'linux') {
    ffi.dlopen(null, { _exit: { arguments: ['i32'], return: 'void' } }).functions._exit(code);
  }
  process.exit(code);
}
