// The operator of a simulated cluster: adds members (as learners or voters), promotes them, removes them, and starts the processes of
// those that were added, one step after the other, each by a request to some member whose outcome may stay unknown. Looks at the
// members' list before every step, as a person would, and never goes below a size that survives the loss of one. A member whose data
// is damaged is removed, its machine emptied and added again, during the faults and after them.

import type { Random } from '../io/random.ts';
import type { Member as ClusterMember } from '../membership/cluster.ts';
import type { StartPlan } from '../server/start-plan.ts';
import type { SimMember } from './sim-member.ts';

export interface OperatorWorld {
  readonly random: Random;
  readonly members: readonly SimMember[];
  after(delayMs: number, run: () => void): void;
  note(line: string): void;
  /** Makes the next machine, not started; null: there are no more. */
  newMachine(plan: (url: string) => StartPlan | null): SimMember | null;
}

export class SimOperator {
  readonly counts: { added: number; promoted: number; removed: number; replaced: number; refused: number } = {
    added: 0,
    promoted: 0,
    removed: 0,
    replaced: 0,
    refused: 0,
  };
  private readonly world: OperatorWorld;
  private readonly meanMs: number;
  private readonly votersMin: number;
  private isOver = false;
  private isBusy = false;

  constructor(world: OperatorWorld, meanMs: number, votersMin: number) {
    this.world = world;
    this.meanMs = meanMs;
    this.votersMin = votersMin;
  }

  start(): void {
    this.lookAfter();
    if (this.meanMs === Infinity) return;
    this.next(this.meanMs);
  }

  /** Only what was begun is brought to its end: who is in the list runs. */
  stop(): void {
    this.isOver = true;
  }

  /** Not everybody is there who is to be. */
  get isReplacing(): boolean {
    return this.world.members.some(({ isLost, isUnplaced }) => isLost || isUnplaced);
  }

  private lookAfter(): void {
    this.world.after(500, () => {
      for (const sim of this.world.members) if (sim.isLost || sim.isUnplaced) this.replace(sim);
      this.lookAfter();
    });
  }

  /** The next step on the way of a member with damaged data: removed, emptied, added, started. */
  private replace(sim: SimMember): void {
    const by = this.serving();
    if (by === null || this.isBusy) return;
    const { cluster } = by.member!.parts;
    const formerId = sim.memberId;
    if (!cluster.isRemoved(formerId)) {
      // Nor is it emptied before: who is a member and has forgotten what it promised may break those promises.
      if (cluster.member(formerId) !== undefined) this.removeId(by, formerId, sim.name);
      return;
    }
    if (sim.isLost) {
      this.world.note(`${sim.name} is emptied`);
      sim.empty(() => this.joinPlan(sim.url, formerId));
    }
    const isListed = cluster.members().some(({ peerUrls }) => peerUrls.includes(sim.url));
    if (!isListed) this.addMachine(by, sim, false);
    else {
      sim.start();
      if (!sim.isUnplaced) this.counts.replaced++;
    }
  }

  private next(meanMs: number): void {
    const delayMs = this.isOver ? 500 : -meanMs * Math.log(1 - this.world.random.float());
    this.world.after(delayMs, () => {
      this.startMachines();
      const sim = this.serving();
      if (sim !== null && !this.isBusy && !this.isOver) this.step(sim);
      this.next(this.meanMs);
    });
  }

  private serving(): SimMember | null {
    const serving = this.world.members.filter((sim) => sim.isServing && !sim.isPaused);
    return serving.length === 0 ? null : serving[this.world.random.below(serving.length)]!;
  }

  /** Machines of members that were added, perhaps without an answer: a cluster may need them to serve. */
  private startMachines(): void {
    for (const machine of this.world.members)
      if (machine.starts === 0 && this.joinPlan(machine.url) !== null) machine.start();
  }

  private step(sim: SimMember): void {
    const { random } = this.world;
    const list = sim.member!.parts.cluster.members();
    const learner = list.find(({ isLearner }) => isLearner);
    const voters = list.filter(({ isLearner }) => !isLearner);
    const what = random.below(4);
    if (learner !== undefined && what > 0) this.promote(sim, learner);
    else if (voters.length > this.votersMin && (what < 2 || voters.length > this.votersMin + 1)) this.remove(sim, list);
    else if (learner === undefined) this.add(sim, random.below(4) > 0);
  }

  private add(sim: SimMember, isLearner: boolean): void {
    const machine = this.world.newMachine((url) => this.joinPlan(url));
    if (machine !== null) this.addMachine(sim, machine, isLearner);
  }

  private addMachine(sim: SimMember, machine: SimMember, isLearner: boolean): void {
    this.world.note(`the operator adds ${machine.name}${isLearner ? ' as a learner' : ''} by ${sim.name}`);
    this.call(sim, (done) =>
      sim.member!.membership.add(
        [machine.url],
        isLearner,
        (error) => done(error === null ? 'added' : 'refused'),
        () => {},
      ),
    );
  }

  private promote(sim: SimMember, { id }: ClusterMember): void {
    this.call(sim, (done) =>
      sim.member!.membership.promote(id, (error) => done(error === null ? 'promoted' : 'refused')),
    );
  }

  private remove(sim: SimMember, list: readonly ClusterMember[]): void {
    const { id, name } = list[this.world.random.below(list.length)]!;
    this.removeId(sim, id, name);
  }

  private removeId(sim: SimMember, id: bigint, name: string): void {
    this.world.note(`the operator removes ${name} by ${sim.name}`);
    this.call(sim, (done) =>
      sim.member!.membership.remove(id, (error) => done(error === null ? 'removed' : 'refused')),
    );
  }

  /** One at a time; what is not answered is over after a while. */
  private call(sim: SimMember, body: (done: (end: keyof SimOperator['counts']) => void) => void): void {
    let isDone = false;
    this.isBusy = true;
    const end = (): void => {
      isDone = true;
      this.isBusy = false;
    };
    this.world.after(10_000, () => {
      if (!isDone) end();
    });
    sim.enter(() =>
      body((kind) => {
        if (isDone) return;
        this.counts[kind]++;
        end();
      }),
    );
  }

  /** What a member that joins is told at the peer listener of one that runs, serving or not; null: not now. */
  private joinPlan(url: string, formerId = 0n): StartPlan | null {
    for (const { member, isPaused } of this.world.members) {
      if (member === null || isPaused) continue;
      const { cluster } = member.parts;
      const remotes = cluster.members();
      const own = remotes.find(({ peerUrls }) => peerUrls.includes(url));
      if (own !== undefined && own.id !== formerId)
        return { kind: 'join', clusterId: cluster.id, memberId: own.id, remotes };
    }
    return null;
  }
}
