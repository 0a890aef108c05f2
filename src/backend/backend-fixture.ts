// Engines of one test file: in a folder of its own, which goes at its end, with whatever is still open.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { Backend } from './backend.ts';
import type { BackendOptions } from './backend-options.ts';

export const folder: string = mkdtempSync(join(tmpdir(), 'keelson-backend-'));
const opened = new Set<Backend>();
after(async () => {
  // What a failed test left open would keep the process.
  for (const backend of opened) await closed(backend);
  rmSync(folder, { recursive: true, force: true });
});

export function openBackend(options: BackendOptions): Backend {
  const backend = Backend.open(options);
  opened.add(backend);
  return backend;
}

export function closed(backend: Backend): Promise<void> {
  opened.delete(backend);
  return new Promise((resolve) => backend.close(resolve));
}

export function flushed(backend: Backend): Promise<void> {
  return new Promise((resolve, reject) => backend.flush((error) => (error === null ? resolve() : reject(error))));
}
