// Assertions that are always on. A failed one is a bug of ours: it throws and nothing catches it but the process's last
// handler, which ends the process. Not for bad input (that is a status) nor for a failing disk (that is fatal.ts).

export class AssertionError extends Error {
  override readonly name: string = 'AssertionError';
}

/** Throws AssertionError unless `condition` holds. The message is a literal: building one would cost on hot paths. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}
