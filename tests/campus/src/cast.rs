//! The cast: students to whom something happens that a test or a demonstration wants to find again.
//!
//! Each role has a fixed place in the campus, so that the generators can plant its case; `Campus::student_of`
//! tells the student number. Everyone else lives an ordinary week.

use serde::Serialize;

macro_rules! roles {
    ($($(#[$meta:meta])* $role:ident),+ $(,)?) => {
        /// A planted case.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Role { $($(#[$meta])* $role),+ }

        /// Every role, in the order of their places.
        pub const ROLES: &[Role] = &[$(Role::$role),+];
    };
}

roles! {
    /// Card replaced three days ago at 10:00; passes before and after belong to one person.
    ReissuedCard,
    /// Card lost two days ago and replaced; the lost one opens a gate on the day at 19:10.
    LostCardUsed,
    /// 55 becomes 60 on the day at 10:30; sixteen failed required credits become twelve.
    CorrectedGrade,
    /// Came home two days ago; the gate tells it forty hours later, on the day.
    LateEvent,
    /// Home at 23:20 on a Friday: not late, the door closes at 23:30.
    FridayEvening,
    /// Home at 23:40 on an evening with curfew 23:00.
    LateReturn,
    /// Out for two nights with an approved leave.
    OnLeave,
    /// Out since the evening before the day, no leave, back at 09:00.
    NotBack,
    /// Lives in a dormitory, passes no gate and buys nothing.
    Silent,
    /// Leave ended three days ago and was never cancelled.
    LeaveOverdue,
    /// Changes major on the day at 09:00: old enrolment closed, new one opened, class and counselor changed.
    ChangedMajor,
    /// Was an undergraduate here, is a master's student now: one person, two numbers.
    BachelorToMaster,
    /// Refused three times in ten minutes on the day, 18:05.
    RepeatedDenials,
    /// Card read in two buildings within two minutes on the day, 12:30.
    TwoPlaces,
    /// Missed an examination; posted within the last thirty days.
    MissedExamination,
    /// Leaves the school on the day at 15:00: the registrar marks the row as deleted.
    Withdrawn,
    /// Moves to another room on the day at 11:00.
    RoomMove,
    /// Holds the physical card that ReissuedCard gave back.
    ReusedCard,
    /// Failed a required course and passed the resit: no failed course.
    ResitPassed,
    /// Failed twenty required credits.
    FailedCredits,
    /// Asks for leave on the day at 08:40.
    LeaveAsked,
    /// Leave asked for yesterday is approved on the day at 10:10.
    LeaveApproved,
}

impl Role {
    /// The place in `Campus::students`.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The role at a place, if it is one of the cast.
    pub fn at(index: usize) -> Option<Role> {
        ROLES.get(index).copied()
    }
}
