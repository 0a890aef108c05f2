// How a command line ends other than well: an exit code of etcd's tools (pkg/cobrautl) and the text after "Error: ". Scripts
// branch on both.

import { messageOf } from './system-error.ts';

export const ExitCode = {
  error: 1,
  badConnection: 2,
  /** For txn and watch: what was read from stdin makes no sense. */
  invalidInput: 3,
  /** A valid flag with a value that is not supported. */
  badFeature: 4,
  interrupted: 5,
  badArguments: 128,
  /** What a shell reports for a program that SIGPIPE ended, as it ends etcdctl when the reader of its output goes away. */
  brokenPipe: 141,
} as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** Ends the program with this code. `message` is printed after "Error: "; null: what there was to say has been printed. */
export class ExitError extends Error {
  override readonly name: string = 'ExitError';
  readonly code: number;
  readonly isSilent: boolean;
  constructor(code: number, message: string | null) {
    super(message ?? '');
    this.code = code;
    this.isSilent = message === null;
  }
}

export function badArguments(message: string): ExitError {
  return new ExitError(ExitCode.badArguments, message);
}

/** Runs the call; its failure ends the program with this code and, before the reason, this text. */
export async function failingWith<T>(
  code: number,
  call: Promise<T>,
  describe?: (reason: string) => string,
): Promise<T> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof ExitError || !(error instanceof Error)) throw error;
    const message = messageOf(error);
    throw new ExitError(code, describe === undefined ? message : describe(message));
  }
}
