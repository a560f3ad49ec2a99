//! Who makes whom, so that parents, sessions and groups come out as they were. Pure.
//!
//! A session is inherited at fork and a group may only be joined within it, so each process is made by one that is in
//! its session at that moment: its parent, before or after the parent's own setsid; a stand-in for a dead leader, as its
//! sibling; or, for an orphan, a short-lived child of the living leader.

use std::collections::{BTreeMap, BTreeSet};

use node_agent_image::model::{NodeModel, Pid};

/// What a node of the tree becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Makes everything and goes.
    Builder,
    /// Stands for the old guardian: subreaper, reaps, reports the root's end.
    Guardian,
    /// Stands for a process outside the job and only has to exist.
    Outsider,
    /// Stands for a dead leader until everybody is in place.
    Temporary,
    /// Index into the model's processes.
    Process(usize),
}

/// How one makes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Fork, before the maker's own setsid.
    Early,
    /// Fork.
    Child,
    /// Fork on behalf of the maker's parent.
    Sibling,
    /// Fork twice; the one between ends at once and the nearest subreaper inherits.
    Orphan,
}

/// A process to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    #[allow(missing_docs)]
    pub pid: Pid,
    #[allow(missing_docs)]
    pub role: Role,
    /// Calls setsid.
    pub leads_session: bool,
    /// Group to be in at last; 0 = the one it is born into.
    pub group: Pid,
    /// Whom it makes, in this order.
    pub makes: Vec<(Way, usize)>,
}

/// The tree: node 0 is the builder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    #[allow(missing_docs)]
    pub nodes: Vec<Node>,
    /// Pids that nobody had, for helpers: the nth `Way::Orphan` takes the nth.
    pub spare: Vec<Pid>,
}

struct Planner {
    tree: Tree,
    by_pid: BTreeMap<Pid, usize>,
    sessions: Vec<Pid>,
    born_in: Vec<Pid>,
}

/// Plans for a model. Inconsistent parents (not in the image) become the guardian's children.
pub fn plan(model: &NodeModel) -> Tree {
    let mut planner =
        Planner { tree: Tree::default(), by_pid: BTreeMap::new(), sessions: Vec::new(), born_in: Vec::new() };
    let mut spare = spare_pids(model);
    let builder = planner.add(spare.next().unwrap_or_default(), Role::Builder, 0, 0);
    let guardian = planner.outsiders(model, builder, &mut spare);
    for index in makers_first(model) {
        let process = &model.processes[index];
        let node = planner.add(process.pid, Role::Process(index), process.sid, process.pgid);
        let parent = planner.by_pid.get(&process.ppid).copied().filter(|it| *it != node).unwrap_or(guardian);
        planner.give_birth(parent, node, process.sid);
    }
    planner.dead_group_leaders();
    let orphans = planner.tree.nodes.iter().flat_map(|it| &it.makes).filter(|it| it.0 == Way::Orphan).count();
    planner.tree.spare = spare.take(orphans).collect();
    planner.tree
}

/// Indices of processes, each after its parent and after its session's leader. Pids are no order: they start again from
/// below when they have reached pid_max, and a leader may be a zombie, which the model lists last.
fn makers_first(model: &NodeModel) -> Vec<usize> {
    let by_pid = model.processes.iter().enumerate().map(|(index, it)| (it.pid, index)).collect();
    let mut order = Vec::with_capacity(model.processes.len());
    let mut seen = vec![false; model.processes.len()];
    for index in 0..model.processes.len() {
        after_its_makers(model, &by_pid, index, &mut seen, &mut order);
    }
    order
}

fn after_its_makers(
    model: &NodeModel,
    by_pid: &BTreeMap<Pid, usize>,
    index: usize,
    seen: &mut [bool],
    order: &mut Vec<usize>,
) {
    if std::mem::replace(&mut seen[index], true) {
        return;
    }
    let process = &model.processes[index];
    for maker in [process.ppid, process.sid].iter().filter_map(|it| by_pid.get(it)) {
        after_its_makers(model, by_pid, *maker, seen, order);
    }
    order.push(index);
}

/// Pids from 2 on that nothing in the image has.
fn spare_pids(model: &NodeModel) -> impl Iterator<Item = Pid> + use<> {
    let processes = model.processes.iter().flat_map(|it| {
        let own = [it.pid, it.ppid, it.sid, it.pgid];
        own.into_iter().chain(it.threads.iter().map(|it| it.tid))
    });
    let outsiders = model.outsiders.iter().flat_map(|it| [it.pid, it.sid, it.pgid]);
    let taken: BTreeSet<Pid> = processes.chain(outsiders).collect();
    (2..).filter(move |pid| !taken.contains(pid))
}

impl Planner {
    fn add(&mut self, pid: Pid, role: Role, session: Pid, group: Pid) -> usize {
        let index = self.tree.nodes.len();
        self.tree.nodes.push(Node { pid, role, leads_session: session == pid, group, makes: Vec::new() });
        self.sessions.push(session);
        self.born_in.push(session);
        self.by_pid.insert(pid, index);
        index
    }

    /// Stand-ins for session leaders first, in whose sessions the others are made as children of the builder, so that
    /// pid 1 inherits them all.
    fn outsiders(&mut self, model: &NodeModel, builder: usize, spare: &mut impl Iterator<Item = Pid>) -> usize {
        let mut outsiders: Vec<_> = model.outsiders.iter().collect();
        outsiders.sort_by_key(|it| (it.sid != it.pid, it.guardian));
        let mut guardian = None;
        for outsider in outsiders {
            let role = if outsider.guardian { Role::Guardian } else { Role::Outsider };
            let node = self.add(outsider.pid, role, outsider.sid, outsider.pgid);
            match self.by_pid.get(&outsider.sid) {
                Some(leader) if *leader != node => {
                    let leader = *leader;
                    self.tree.nodes[leader].makes.push((Way::Sibling, node));
                }
                Some(_) => self.tree.nodes[builder].makes.push((Way::Child, node)),
                None if outsider.sid == 0 => self.tree.nodes[builder].makes.push((Way::Child, node)),
                None => self.by_dead_leader(builder, node, outsider.sid),
            }
            if outsider.guardian {
                guardian = Some(node);
            }
        }
        guardian.unwrap_or_else(|| {
            let node = self.add(spare.next().unwrap_or_default(), Role::Guardian, 0, 0);
            self.tree.nodes[builder].makes.push((Way::Child, node));
            node
        })
    }

    fn give_birth(&mut self, parent: usize, node: usize, session: Pid) {
        let here = self.sessions[parent];
        if self.tree.nodes[node].leads_session {
            self.born_in[node] = here;
            self.tree.nodes[parent].makes.push((Way::Child, node));
        } else if session == here {
            self.tree.nodes[parent].makes.push((Way::Child, node));
        } else if self.tree.nodes[parent].leads_session && self.born_in[parent] == session {
            self.tree.nodes[parent].makes.push((Way::Early, node));
        } else if let Some(leader) = self.by_pid.get(&session).copied().filter(|it| !self.stands_in(parent, *it)) {
            self.tree.nodes[leader].makes.push((Way::Orphan, node));
        } else {
            self.by_dead_leader(parent, node, session);
        }
    }

    /// Whether `leader` is a dead leader's stand-in that `parent` has made.
    fn stands_in(&self, parent: usize, leader: usize) -> bool {
        let made = self.tree.nodes[parent].makes.iter().any(|it| it.1 == leader);
        made && self.tree.nodes[leader].role == Role::Temporary
    }

    fn by_dead_leader(&mut self, parent: usize, node: usize, session: Pid) {
        let known = self.tree.nodes[parent].makes.iter().find(|(_, it)| self.tree.nodes[*it].pid == session);
        let leader = known.map(|it| it.1).unwrap_or_else(|| {
            let leader = self.add(session, Role::Temporary, session, session);
            self.tree.nodes[parent].makes.push((Way::Child, leader));
            leader
        });
        self.tree.nodes[leader].makes.push((Way::Sibling, node));
    }

    /// The first member of a group without a leader makes one for the time being.
    fn dead_group_leaders(&mut self) {
        for member in 1..self.tree.nodes.len() {
            let group = self.tree.nodes[member].group;
            if group != 0 && !self.by_pid.contains_key(&group) {
                let leader = self.add(group, Role::Temporary, self.sessions[member], group);
                self.tree.nodes[member].makes.push((Way::Child, leader));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use node_agent_image::model::{Outsider, Process};

    use super::*;

    fn process(pid: Pid, ppid: Pid, sid: Pid, pgid: Pid) -> Process {
        Process { pid, ppid, sid, pgid, ..Process::default() }
    }

    fn job(processes: Vec<Process>) -> Tree {
        let outsiders = vec![
            Outsider { pid: 20, sid: 10, pgid: 20, guardian: true },
            Outsider { pid: 10, sid: 10, pgid: 10, guardian: false },
        ];
        plan(&NodeModel { processes, outsiders, ..NodeModel::default() })
    }

    fn maker(tree: &Tree, pid: Pid) -> (Pid, Way) {
        let node = tree.nodes.iter().position(|it| it.pid == pid).expect("in the tree");
        let mut makers = tree.nodes.iter().flat_map(|it| it.makes.iter().map(move |make| (it.pid, make)));
        let (maker, (way, _)) = makers.find(|(_, make)| make.1 == node).expect("made by somebody");
        (maker, *way)
    }

    #[test]
    fn the_guardian_is_made_within_its_callers_session() {
        let tree = job(vec![process(30, 20, 10, 20)]);
        assert_eq!(maker(&tree, 10), (2, Way::Child));
        assert_eq!(maker(&tree, 20), (10, Way::Sibling));
        assert_eq!(maker(&tree, 30), (20, Way::Child));
    }

    #[test]
    fn a_session_leader_makes_children_of_its_first_session_early() {
        let tree = job(vec![process(30, 20, 30, 30), process(31, 30, 10, 20), process(32, 30, 30, 30)]);
        assert_eq!(maker(&tree, 31), (30, Way::Early));
        assert_eq!(maker(&tree, 32), (30, Way::Child));
    }

    #[test]
    fn an_orphan_comes_from_its_living_leader() {
        let tree = job(vec![process(30, 20, 30, 30), process(33, 20, 30, 30)]);
        assert_eq!(maker(&tree, 33), (30, Way::Orphan));
        assert_eq!(tree.spare, [3]);
    }

    #[test]
    fn dead_leaders_have_stand_ins() {
        let tree = job(vec![process(30, 20, 29, 29), process(31, 20, 29, 28)]);
        assert_eq!(maker(&tree, 29), (20, Way::Child));
        assert_eq!(maker(&tree, 30), (29, Way::Sibling));
        assert_eq!(maker(&tree, 31), (29, Way::Sibling));
        assert_eq!(maker(&tree, 28), (31, Way::Child));
    }

    #[test]
    fn a_child_may_have_a_lower_pid_than_its_parent() {
        let tree = job(vec![process(25, 31, 10, 20), process(31, 20, 10, 20)]);
        assert_eq!(maker(&tree, 25), (31, Way::Child));
        assert_eq!(maker(&tree, 31), (20, Way::Child));
    }

    #[test]
    fn a_zombie_leads_its_session_as_long_as_it_has_members() {
        let zombie = Process { zombie: Some(0), ..process(30, 29, 30, 30) };
        let tree = job(vec![process(29, 20, 10, 20), process(31, 20, 30, 30), zombie]);
        assert_eq!(maker(&tree, 30), (29, Way::Child));
        assert_eq!(maker(&tree, 31), (30, Way::Orphan));
        assert_eq!(tree.nodes.iter().filter(|it| it.pid == 30).count(), 1);
    }

    #[test]
    fn spare_pids_are_nobodys() {
        let tree = plan(&NodeModel { processes: vec![process(2, 1, 0, 0)], ..NodeModel::default() });
        assert_eq!(tree.nodes[0].pid, 3);
    }
}
