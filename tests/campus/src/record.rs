//! One row as a source system writes it: when, what kind of change, and what must become of it in Quad.

use chrono::NaiveDateTime;
use serde::Serialize;

/// A row version of one source table.
#[derive(Clone, Debug)]
pub struct Record<T> {
    /// Local time at which the source has it (the commit, or the delivery of a push).
    pub at: NaiveDateTime,
    pub change: Change,
    pub fate: Fate,
    pub value: T,
}

/// What the source does to its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Insert,
    /// Same key as an earlier record.
    Update,
    /// The row vanishes from the source without a trace.
    Delete,
}

/// What must become of a delivered row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A version in the lake.
    Lands,
    /// Equal in every byte to a row delivered before: no new version.
    Repeat,
    /// A version that deletes its key.
    Deletes,
    /// A dead letter.
    Dead(Defect),
}

macro_rules! defects {
    ($($defect:ident: $table:literal $rule:literal $field:literal),+ $(,)?) => {
        /// The broken kinds that are planted. Each names the table, the rule and the field of the dead letter it causes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Defect { $($defect),+ }

        impl Defect {
            /// Contract table, rule and field of the dead letter; the field is empty for rules over the whole row.
            pub fn letter(self) -> (&'static str, &'static str, &'static str) {
                match self { $(Defect::$defect => ($table, $rule, $field)),+ }
            }
        }
    };
}

defects! {
    StudentBirthDate: "student_affairs.student_base" "type" "birth_date",
    StudentNoMissing: "student_affairs.student_base" "required" "student_no",
    LeaveBackwards: "student_affairs.leave_request" "ends_after_start" "",
    LeaveStatusUnknown: "student_affairs.leave_request" "values" "approval_status",
    ContactDuration: "student_affairs.contact_record" "range" "duration_min",
    AidAmount: "student_affairs.aid_record" "range" "amount_fen",
    AwardRevokedEarly: "student_affairs.award_punishment" "revoked_after_decided" "",
    CommunityFloor: "student_affairs.community_org" "range" "floor_no",
    ActivityBackwards: "student_affairs.activity" "ends_after_start" "",
    ParticipationHours: "student_affairs.activity_participation" "range" "hours",
    AccountStatusUnknown: "identity.account" "values" "account_status",
    CardBalance: "identity.card" "range" "balance_fen",
    OrgStandardCode: "identity.org_unit" "pattern" "std_code",
    StaffStateUnknown: "identity.staff" "values" "employment_status",
    RoleBackwards: "identity.staff_role" "valid_from_before_valid_to" "",
    EnrollmentGradeYear: "academic.enrollment" "range" "grade_year",
    CourseCredits: "academic.course" "range" "credits",
    GradeScore: "academic.grade" "range" "score",
    GradeExamDate: "academic.grade" "type" "exam_on",
    GradeNatureUnknown: "academic.grade" "KSXZM" "exam_nature",
    StatusChangeDate: "academic.status_change" "type" "changed_on",
    RegistrationYear: "academic.term_registration" "academic_year_spans_two" "",
    ClassWeeks: "academic.teaching_class" "pattern" "weeks",
    SelectionTime: "academic.course_selection" "type" "selected_at",
    AttendanceSection: "academic.attendance" "range" "section_from",
    FitnessScore: "extension.fitness_test" "range" "total_score",
    ServiceRating: "extension.service_transaction" "range" "rating",
    SpaceFloor: "logistics.space" "range" "floor_no",
    ReadingUnmapped: "logistics.utility_reading" "required" "room_id",
    ReadingPower: "logistics.utility_reading" "range" "power_w",
    BedStudentNoFloat: "logistics.bed_assignment" "pattern" "student_no",
    TxnTime: "logistics.card_txn" "type" "txn_at",
    TxnAmount: "logistics.card_txn" "range" "amount_fen",
    InspectionScore: "logistics.dorm_inspection" "range" "score",
    RepairBackwards: "logistics.repair_order" "accepted_after_reported" "",
    AppealRepliedEarly: "logistics.appeal_case" "replied_after_assigned" "",
    AppealStepNumber: "logistics.appeal_step" "range" "step_no",
    DeviceDoor: "access_control.device" "range" "door_no",
    EventAhead: "access_control.access_event" "clock_not_ahead" "",
    EventDeviceMissing: "access_control.access_event" "required" "device_id",
}

impl<T> Record<T> {
    /// A row that is there when the day begins or comes during it.
    pub fn insert(at: NaiveDateTime, value: T) -> Self {
        Self { at, change: Change::Insert, fate: Fate::Lands, value }
    }

    /// A row written over an earlier one of the same key.
    pub fn update(at: NaiveDateTime, value: T) -> Self {
        Self { change: Change::Update, ..Self::insert(at, value) }
    }

    /// A broken row.
    pub fn dead(at: NaiveDateTime, defect: Defect, value: T) -> Self {
        Self { fate: Fate::Dead(defect), ..Self::insert(at, value) }
    }

    /// The same as another writes it.
    pub fn with<U>(&self, value: U) -> Record<U> {
        Record { at: self.at, change: self.change, fate: self.fate, value }
    }

    /// The broken kind, if it is one.
    pub fn defect(&self) -> Option<Defect> {
        match self.fate {
            Fate::Dead(defect) => Some(defect),
            _ => None,
        }
    }
}
