// What the system refuses, in the words that Go's programs and people know: "no such file or directory", without Node's code and
// call around it.

interface SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  readonly path?: string;
  readonly dest?: string;
}

export function isSystemError(error: unknown): error is SystemError {
  return error instanceof Error && 'errno' in error && typeof error.errno === 'number' && 'syscall' in error;
}

/** Where libuv's words are not the C library's. */
const otherWords: Readonly<Record<string, string>> = { EISDIR: 'is a directory' };

/** Why alone. */
export function reasonOf(error: unknown): string {
  if (!isSystemError(error)) return error instanceof Error ? error.message : String(error);
  // Loaded here: importing node:util takes a millisecond of every run.
  return otherWords[error.code] ?? process.getBuiltinModule('node:util').getSystemErrorMessage(error.errno);
}

/** What was tried, on what, and why not: "mkdir /proc/x: no such file or directory". Another error's own message. */
export function messageOf(error: Error): string {
  if (!isSystemError(error)) return error.message;
  const operands = [error.path, error.dest].filter((path) => path !== undefined && path !== '');
  return `${[error.syscall, ...operands].join(' ')}: ${reasonOf(error)}`;
}
