//! Which persons a call is about. A request's filters enter; whether a person is among them leaves.

use proto::profile::v1::{ListProfilesRequest, WatchProfilesRequest};

use crate::profile::Person;

/// Filters that all must hold; an empty one always does.
#[derive(Debug, Clone)]
pub struct Scope {
    class_id: String,
    college_id: String,
    building_id: String,
    counselor_staff_no: String,
    grade_year: i32,
}

impl From<&ListProfilesRequest> for Scope {
    fn from(request: &ListProfilesRequest) -> Self {
        Self {
            class_id: request.class_id.clone(),
            college_id: request.college_id.clone(),
            building_id: request.building_id.clone(),
            counselor_staff_no: request.counselor_staff_no.clone(),
            grade_year: request.grade_year,
        }
    }
}

impl From<&WatchProfilesRequest> for Scope {
    fn from(request: &WatchProfilesRequest) -> Self {
        Self {
            class_id: request.class_id.clone(),
            college_id: request.college_id.clone(),
            building_id: request.building_id.clone(),
            counselor_staff_no: request.counselor_staff_no.clone(),
            grade_year: request.grade_year,
        }
    }
}

impl Scope {
    pub fn has(&self, person: &Person) -> bool {
        let is = |wanted: &str, value: Option<&str>| wanted.is_empty() || value == Some(wanted);
        let year = i64::from(self.grade_year);
        is(&self.class_id, person.class_id.as_deref())
            && is(&self.college_id, person.college_id.as_deref())
            && is(&self.building_id, person.building_id.as_deref())
            && is(&self.counselor_staff_no, person.counselor_staff_no.as_deref())
            && (year == 0 || person.grade_year == Some(year))
    }

    /// A text that differs for other filters.
    pub fn text(&self) -> String {
        let Self { class_id, college_id, building_id, counselor_staff_no, grade_year } = self;
        format!("{class_id}|{college_id}|{building_id}|{counselor_staff_no}|{grade_year}")
    }
}
