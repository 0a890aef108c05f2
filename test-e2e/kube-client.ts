// Just enough of a Kubernetes client for the peer tests: JSON over HTTPS, lists by page, watches that resume where they ended.
// It never retries a request: a test has to know which of its writes were acknowledged.

import { Agent, request } from 'node:https';
import { sleep } from './program.ts';

export interface KubeObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly resourceVersion: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: unknown;
}

export interface KubeList {
  readonly metadata: {
    readonly resourceVersion: string;
    readonly continue?: string;
    readonly remainingItemCount?: number;
  };
  readonly items: KubeObject[];
}

/** Status 0: the connection broke or the time ran out, nobody knows whether the request took effect. */
export interface Answer {
  readonly status: number;
  readonly text: string;
}

export interface WatchEvent {
  readonly type: string;
  readonly name: string;
  readonly resourceVersion: string;
}

export interface Watch {
  readonly events: WatchEvent[];
  /** What it ended with, when it cannot go on (410 and the like). */
  failure: string | null;
  /** How often it was opened anew from the last seen revision. */
  resumes: number;
  stop(): void;
}

const REQUEST_TIMEOUT_MS = 70_000; // above the API server's own 60 s
const MERGE_PATCH = 'application/merge-patch+json';

export class KubeClient {
  readonly #port: number;
  readonly #token: string;
  readonly #agent: Agent = new Agent({ keepAlive: true, maxSockets: 64, rejectUnauthorized: false });

  constructor(port: number, token: string) {
    this.#port = port;
    this.#token = token;
  }

  /** The same user at another API server. */
  at(port: number): KubeClient {
    return new KubeClient(port, this.#token);
  }

  send(method: string, path: string, body?: unknown, contentType: string = 'application/json'): Promise<Answer> {
    return new Promise((resolve) => {
      const headers = {
        authorization: `Bearer ${this.#token}`,
        accept: 'application/json',
        'content-type': contentType,
      };
      const target = { host: '127.0.0.1', port: this.#port, method, path, headers, agent: this.#agent };
      const call = request({ ...target, timeout: REQUEST_TIMEOUT_MS }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', (error) => resolve({ status: 0, text: String(error) }));
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() }));
      });
      call.on('timeout', () => call.destroy(new Error('timeout')));
      call.on('error', (error) => resolve({ status: 0, text: String(error) }));
      call.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** A request that has to succeed. While a cache fills (429, nothing was done) it waits as a client should. */
  async object(method: string, path: string, body?: unknown, contentType?: string): Promise<KubeObject> {
    let answer = await this.send(method, path, body, contentType);
    for (let tries = 0; answer.status === 429 && tries < 50; tries++) {
      await sleep(200);
      answer = await this.send(method, path, body, contentType);
    }
    if (answer.status < 200 || answer.status > 299) throw new Error(`${method} ${path}: ${describeAnswer(answer)}`);
    return JSON.parse(answer.text) as KubeObject;
  }

  patch(path: string, body: unknown): Promise<Answer> {
    return this.send('PATCH', path, body, MERGE_PATCH);
  }

  async list(path: string, query: Readonly<Record<string, string>> = {}): Promise<KubeList> {
    const text = new URLSearchParams(query).toString();
    return (await this.object('GET', text === '' ? path : `${path}?${text}`)) as unknown as KubeList;
  }

  /** All pages of a list, each at most `limit` long. */
  async pages(path: string, limit: number, query: Readonly<Record<string, string>> = {}): Promise<KubeList[]> {
    const pages: KubeList[] = [await this.list(path, { ...query, limit: String(limit) })];
    for (let token = pages[0]!.metadata.continue ?? ''; token !== ''; token = pages.at(-1)!.metadata.continue ?? '') {
      pages.push(await this.list(path, { limit: String(limit), continue: token }));
    }
    return pages;
  }

  /** Watches from a revision on; when the stream ends it goes on from the last revision seen, as client-go does. */
  watch(path: string, resourceVersion: string): Watch {
    let from = resourceVersion;
    let stopped = false;
    let abort: () => void = () => {};
    const watch: Watch = {
      events: [],
      failure: null,
      resumes: -1,
      stop: () => {
        stopped = true;
        abort();
      },
    };
    const onLine = (line: string): void => {
      const event = JSON.parse(line) as { type: string; object: KubeObject };
      if (event.type === 'ERROR') {
        watch.failure = line;
        return;
      }
      from = event.object.metadata.resourceVersion;
      if (event.type === 'BOOKMARK') return;
      watch.events.push({ type: event.type, name: event.object.metadata.name, resourceVersion: from });
    };
    const open = (): void => {
      if (stopped || watch.failure !== null) return;
      watch.resumes++;
      let again = false;
      const reopen = (): void => {
        if (!again) setTimeout(open, 200);
        again = true;
      };
      const query = `watch=true&allowWatchBookmarks=true&resourceVersion=${from}&timeoutSeconds=600`;
      const headers = { authorization: `Bearer ${this.#token}`, accept: 'application/json' };
      const target = {
        host: '127.0.0.1',
        port: this.#port,
        path: `${path}?${query}`,
        headers,
        rejectUnauthorized: false,
      };
      const call = request({ ...target, agent: false }, (response) => {
        if (response.statusCode !== 200) {
          // The API server answers 5xx and 429 while its store is away; 410 is for good.
          if (response.statusCode === 410) watch.failure = '410 Gone';
          response.resume();
          reopen();
          return;
        }
        let rest = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          const lines = (rest + chunk).split('\n');
          rest = lines.pop() ?? '';
          for (const line of lines) onLine(line);
        });
        response.on('error', reopen);
        response.on('end', reopen);
      });
      call.on('error', reopen);
      call.end();
      abort = () => call.destroy();
    };
    open();
    return watch;
  }

  close(): void {
    this.#agent.destroy();
  }
}

export function describeAnswer(answer: Answer): string {
  return `${answer.status} ${answer.text.slice(0, 400)}`;
}

/** Runs the jobs, `width` at a time; the first failure stops it. */
export async function inParallel<T>(count: number, width: number, job: (index: number) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      const index = next++;
      results[index] = await job(index);
    }
  };
  await Promise.all(Array.from({ length: Math.min(width, count) }, worker));
  return results;
}
