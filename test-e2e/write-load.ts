// Writers that go on while the store is killed below the API server, and remember what they were told. Each object has one writer,
// so what it must be afterwards is known: its last acknowledged state, or, when one answer never came, that or what was asked for.

import { type Answer, describeAnswer, type KubeClient, type KubeObject } from './kube-client.ts';
import { sleep } from './program.ts';

/** `step` is the counter written into the object; -1: it does not exist. */
interface State {
  readonly step: number;
  /** The revision of the acknowledged write; empty after a deletion. */
  readonly resourceVersion: string;
}

interface Outcome {
  acknowledged: State;
  /** Asked for, answer unknown. */
  uncertain: number | null;
}

const ABSENT = -1;
const STEPS = 3;

export interface Kind {
  readonly path: string;
  body(name: string): object;
}

export class WriteLoad {
  acknowledged = 0;
  uncertain = 0;
  /** Answers that a store which keeps its word cannot cause. */
  readonly violations: string[] = [];
  readonly #client: KubeClient;
  readonly #kind: Kind;
  readonly #prefix: string;
  readonly #outcomes = new Map<string, Outcome>();
  #running = true;
  readonly #done: Promise<unknown>;

  constructor(client: KubeClient, kind: Kind, prefix: string, writers: number) {
    this.#client = client;
    this.#kind = kind;
    this.#prefix = prefix;
    this.#done = Promise.all(Array.from({ length: writers }, (_, writer) => this.#write(writer)));
  }

  async stop(): Promise<void> {
    this.#running = false;
    await this.#done;
  }

  async #write(writer: number): Promise<void> {
    for (let count = 0; this.#running; count++) {
      const name = `${this.#prefix}-${writer}-${count}`;
      this.#outcomes.set(name, { acknowledged: { step: ABSENT, resourceVersion: '' }, uncertain: null });
      for (let step = 0; step < STEPS; step++) {
        if (!(await this.#settle(name, step))) break;
      }
      const last = this.#outcomes.get(name)!;
      if (count % 3 === 0 && last.uncertain === null && last.acknowledged.step === STEPS - 1) {
        await this.#settle(name, ABSENT);
      }
    }
  }

  /** Brings the object to a state; false when nobody can say whether that worked. */
  async #settle(name: string, step: number): Promise<boolean> {
    const outcome = this.#outcomes.get(name)!;
    while (true) {
      const answer = await this.#ask(name, step);
      if (answer.status >= 200 && answer.status <= 299) {
        this.acknowledged++;
        const made = JSON.parse(answer.text) as KubeObject;
        outcome.acknowledged = { step, resourceVersion: step === ABSENT ? '' : made.metadata.resourceVersion };
        return true;
      }
      if (answer.status === 429) {
        await sleep(100);
        continue;
      }
      if (answer.status === 0 || answer.status >= 500) {
        this.uncertain++;
        outcome.uncertain = step;
        await sleep(100);
        return false;
      }
      this.violations.push(`${name} to step ${step}, last ${JSON.stringify(outcome)}: ${describeAnswer(answer)}`);
      return false;
    }
  }

  #ask(name: string, step: number): Promise<Answer> {
    const { path } = this.#kind;
    if (step === ABSENT) return this.#client.send('DELETE', `${path}/${name}`);
    if (step === 0) return this.#client.send('POST', path, withStep(this.#kind.body(name), 0));
    return this.#client.patch(`${path}/${name}`, { metadata: { labels: { step: String(step) } } });
  }

  /** What in the list is not what the writers were told. Never empty for a list that lost an acknowledged write. */
  compare(items: readonly KubeObject[]): string[] {
    const found = new Map(items.map((item) => [item.metadata.name, item]));
    const wrong: string[] = [];
    for (const [name, { acknowledged, uncertain }] of this.#outcomes) {
      const item = found.get(name);
      const step = item === undefined ? ABSENT : Number(item.metadata.labels?.['step']);
      if (step !== acknowledged.step && step !== uncertain) {
        wrong.push(`${name}: acknowledged ${JSON.stringify(acknowledged)}, uncertain ${uncertain}, found step ${step}`);
      } else if (item !== undefined && step !== uncertain && uncertain !== ABSENT) {
        // (Deleting a pod first marks it, by a write of its own: cut off between the two, it has a newer revision.)
        const { resourceVersion } = item.metadata;
        if (resourceVersion !== acknowledged.resourceVersion) {
          wrong.push(`${name}: acknowledged at ${acknowledged.resourceVersion}, found at ${resourceVersion}`);
        }
      }
    }
    return wrong;
  }

  get objects(): number {
    return this.#outcomes.size;
  }
}

function withStep(body: object, step: number): object {
  const { metadata } = body as { metadata: { labels?: object } };
  return { ...body, metadata: { ...metadata, labels: { ...metadata.labels, step: String(step) } } };
}
